//! Who Redis is: a name that changes whenever a server may have lost something that it once held.

use std::fmt;

use redis::Pipeline;

use super::RedisError;

/// A Redis server, and the history of its data.
///
/// Its process (a restart may bring an older state back), its replication history (a new primary may
/// lack the last writes, and a former one takes over what the new one has), how many keys it had to
/// evict, and which of its numbered databases is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server(String);

impl Server {
    /// The name, as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the answer to [`ask`].
    pub(super) fn parse(info: &str, database: i64) -> Result<Self, RedisError> {
        let field = |name: &'static str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .filter(|value| !value.is_empty())
                .ok_or(RedisError::Unreadable(name))
        };
        let policy = field("maxmemory_policy")?;
        if policy != "noeviction" {
            return Err(RedisError::Evicts(policy.to_owned()));
        }
        let (run, history) = (field("run_id")?, field("master_replid")?);
        let n_evicted = field("evicted_keys")?;
        Ok(Self(format!("{run}/{history}/{n_evicted}/{database}")))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks who answers, as part of what else is asked.
pub(super) fn ask(pipeline: &mut Pipeline) {
    // Several sections in one answer: since Redis 7.0.
    pipeline.cmd("info").arg(&["server", "replication", "memory", "stats"]);
}

#[cfg(test)]
mod tests {
    use super::{RedisError, Server};

    const INFO: &str = "# Server\r\nrun_id:aa\r\n# Memory\r\nmaxmemory_policy:noeviction\r\n\
                        # Replication\r\nmaster_replid:bb\r\nmaster_replid2:00\r\nevicted_keys:0\r\n";

    #[test]
    fn a_server_is_its_process_its_history_and_its_evictions() {
        let server = Server::parse(INFO, 0).unwrap();
        assert_eq!(server.as_str(), "aa/bb/0/0");
        for (from, to) in
            [("run_id:aa", "run_id:ab"), ("replid:bb", "replid:bc"), ("keys:0", "keys:1")]
        {
            assert_ne!(Server::parse(&INFO.replace(from, to), 0).unwrap(), server, "{to}");
        }
        assert_ne!(Server::parse(INFO, 1).unwrap(), server);
    }

    #[test]
    fn a_server_that_evicts_or_hides_is_not_used() {
        let evicts = Server::parse(&INFO.replace("noeviction", "allkeys-lru"), 0);
        assert!(matches!(evicts, Err(RedisError::Evicts(policy)) if policy == "allkeys-lru"));
        for hidden in ["run_id:aa", "maxmemory_policy:noeviction", "replid:bb", "evicted_keys:0"] {
            let told = Server::parse(&INFO.replace(hidden, ""), 0);
            assert!(matches!(told, Err(RedisError::Unreadable(_))), "{hidden}: {told:?}");
        }
    }
}
