//! Looks after the endpoints: which chain they are of, and whether they keep up.

use futures_util::future::join_all;

use super::{
    Block, Chain, ChainError, LensMode,
    endpoints::{Endpoint, Failure},
    error::ChainErrorKind,
    standing::Fitness,
};

/// What an endpoint is good for.
#[derive(Debug)]
pub struct EndpointReport {
    /// Its newest block.
    pub newest: Block,
    /// How it takes the verification lens.
    pub lens: Result<LensMode, ChainError>,
    /// Whether it has `eth_simulateV1`, by which assets that are not well known are tried.
    pub simulates: bool,
}

impl Chain {
    /// Asks the endpoints in use which chain they are of, and refuses if any is of another or does not
    /// say: whatever was just read may have come from it.
    pub async fn check(&self) -> Result<(), ChainError> {
        let fit = self.endpoints.list.iter();
        let fit: Vec<_> =
            fit.filter(|endpoint| self.endpoints.fitness(endpoint) == Fitness::Fit).collect();
        let is_any_fit = !fit.is_empty();
        let asked = if is_any_fit { fit } else { self.endpoints.list.iter().collect() };
        let answers = join_all(asked.into_iter().map(|endpoint| async {
            let was_identified = self.endpoints.is_identified(endpoint);
            let identified = self.endpoints.identify(endpoint).await;
            (was_identified, identified.map_err(|source| (endpoint.name, source)))
        }));
        let (mut n_right, mut failure) = (0_usize, None);
        for (was_identified, answer) in answers.await {
            match answer {
                Ok(()) => n_right = n_right.saturating_add(1),
                Err((name, source)) => {
                    let is_turned =
                        was_identified && matches!(source, ChainErrorKind::OtherChain(_));
                    if is_any_fit || is_turned {
                        return Err(self.unidentified((name, source)));
                    }
                    failure.get_or_insert((name, source));
                }
            }
        }
        match failure {
            Some(failure) if n_right == 0 => Err(self.unidentified(failure)),
            _ => Ok(()),
        }
    }

    /// Looks at every endpoint: its chain id once and then rarely, its newest block each time, and once how
    /// it takes the lens. To be called every few seconds: an endpoint that was set aside comes back this
    /// way, and one that nobody asks is seen to lag before it is needed. Takes two timeouts at most.
    pub async fn survey(&self) {
        let endpoints = &self.endpoints;
        let due = endpoints.list.iter().filter(|endpoint| !endpoints.is_aside(endpoint));
        join_all(due.map(|endpoint| async move {
            let looked = tokio::time::timeout(endpoints.timeout, self.look_at(endpoint)).await;
            if looked.is_err() {
                let silence = ChainErrorKind::Unusable("no answer in time".to_owned());
                endpoints.note_failure(endpoint, &silence);
            } else if endpoints.is_identified(endpoint) {
                // Several calls, which say nothing of how the endpoint keeps up.
                let _ = tokio::time::timeout(endpoints.timeout, endpoint.watch_lens()).await;
            }
        }))
        .await;
    }

    async fn look_at(&self, endpoint: &Endpoint) {
        let endpoints = &self.endpoints;
        if endpoints.wants_identity(endpoint) && endpoints.identify(endpoint).await.is_err() {
            return;
        }
        if endpoints.is_identified(endpoint)
            && let Ok(block) = endpoints.note_outcome(endpoint, endpoint.newest_block().await)
        {
            endpoints.note_head(endpoint, block.number, block.timestamp);
        }
    }

    /// What each endpoint is good for, in the order of the settings, or what is wrong with it.
    pub async fn examine_endpoints(&self) -> Vec<Result<EndpointReport, ChainError>> {
        join_all(self.endpoints.list.iter().map(|endpoint| async {
            let named = |source| (endpoint.name, source);
            self.endpoints.identify(endpoint).await.map_err(|e| self.unidentified(named(e)))?;
            let newest = endpoint.newest_block().await;
            let newest =
                newest.map_err(|e| self.failed("read the latest block".to_owned(), named(e)))?;
            let lens = endpoint.lens_mode().await;
            let lens = lens.map_err(|e| self.failed("try the lens".to_owned(), named(e)));
            Ok(EndpointReport { newest, lens, simulates: endpoint.simulates().await })
        }))
        .await
    }

    fn unidentified(&self, failure: Failure) -> ChainError {
        self.failed("read the chain id".to_owned(), failure)
    }
}
