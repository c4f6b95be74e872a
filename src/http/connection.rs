//! What an answer holds until it is sent: the body that it answers, and its merchant's seat.
//!
//! A connection ends with an answer that gave up its body.
//! actix drains a chunked body that nobody reads, without a limit of time, and keeps the connection
//! for it: whoever sends a body that never ends could hold connections without a key. While somebody
//! holds the body, actix answers and closes instead; so the answer holds it.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    Error, HttpMessage as _,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    middleware::Next,
    web::Bytes,
};
use futures_util::Stream;

use crate::limits::Seat;

/// Lets the answer hold the request's body, and its seat among its merchant's requests, until it is sent.
pub async fn end_with_answer(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let body = Rc::new(RefCell::new(request.take_payload()));
    let reader = Reader(Rc::clone(&body));
    request.set_payload(Payload::Stream { payload: Box::pin(reader) });
    let response = next.call(request).await?;
    let seat = response.request().extensions_mut().remove::<Seat>();
    Ok(response.map_body(|_, answer| {
        BoxBody::new(Answer { answer: answer.boxed(), _body: body, _seat: seat })
    }))
}

/// What handlers read.
struct Reader(Rc<RefCell<Payload>>);

impl Stream for Reader {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(cx)
    }
}

/// An answer, and what it holds.
struct Answer {
    answer: BoxBody,
    _body: Rc<RefCell<Payload>>,
    _seat: Option<Seat>,
}

impl MessageBody for Answer {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.answer).poll_next(cx)
    }
}
