//! Hands signed bytes to every endpoint at once.

use std::{sync::Arc, time::Duration};

use alloy::{
    primitives::{B256, Bytes},
    transports::RpcError,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::telemetry::causes;

use super::{
    Chain,
    endpoints::{Endpoint, Endpoints},
    error::ChainErrorKind,
    send_answer::{SendAnswer, SendReport},
};

/// How long the slower endpoints are waited for once one has the bytes, so that one that hangs does
/// not hold the wallet. They are still handed the bytes.
const SEND_GRACE: Duration = Duration::from_millis(300);

impl Chain {
    /// Hands signed bytes to every fit endpoint at once, and to all where none is fit.
    ///
    /// No answer proves anything: an error may follow a transaction that was taken, and an
    /// acceptance may be forgotten. Only a block tells.
    pub async fn send(&self, hash: B256, raw: &[u8]) -> SendReport {
        let raw = Bytes::copy_from_slice(raw);
        let asked = self.endpoints.candidates();
        let mut sends = JoinSet::new();
        for endpoint in asked.iter().map(Arc::clone) {
            let (endpoints, raw) = (Arc::clone(&self.endpoints), raw.clone());
            sends.spawn(async move {
                let answer = send_to(&endpoints, &endpoint, hash, raw).await;
                (endpoint.index, answer)
            });
        }
        let mut answers = answers_in_time(&mut sends).await;
        // Each ends with its timeouts, and what it learns of its endpoint is remembered.
        sends.detach_all();
        for endpoint in asked {
            if answers.iter().all(|(index, _)| *index != endpoint.index) {
                answers.push((endpoint.index, SendAnswer::unknown("no answer yet")));
            }
        }
        answers.sort_by_key(|(index, _)| *index);
        SendReport { answers }
    }
}

async fn answers_in_time(sends: &mut JoinSet<(usize, SendAnswer)>) -> Vec<(usize, SendAnswer)> {
    let (mut answers, mut give_up_at) = (Vec::new(), None);
    loop {
        let next = match give_up_at {
            None => sends.join_next().await,
            Some(at) => timeout_at(at, sends.join_next()).await.unwrap_or(None),
        };
        match next {
            Some(Ok(answer)) => {
                if answer.1.is_acknowledgement() {
                    give_up_at.get_or_insert_with(|| Instant::now() + SEND_GRACE);
                }
                answers.push(answer);
            }
            // A task that died says nothing, which is what stands for it.
            Some(Err(_)) => (),
            None => return answers,
        }
    }
}

async fn send_to(endpoints: &Endpoints, endpoint: &Endpoint, hash: B256, raw: Bytes) -> SendAnswer {
    if let Err(source) = endpoints.identify_if_new(endpoint).await {
        return SendAnswer::unknown(&causes(&source));
    }
    let answered: Result<B256, _> = endpoint.call("eth_sendRawTransaction", (raw,)).await;
    match endpoints.note_outcome(endpoint, answered) {
        Ok(answered) => {
            if answered != hash {
                tracing::warn!(
                    transaction.hash = %hash, answered = %answered, endpoint = %endpoint.name,
                    "a node answered another hash"
                );
            }
            SendAnswer::Accepted
        }
        Err(ChainErrorKind::Rpc(RpcError::ErrorResp(refusal))) => {
            SendAnswer::of_refusal(&refusal.message)
        }
        Err(source) => SendAnswer::unknown(&causes(&source)),
    }
}
