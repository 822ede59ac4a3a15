//! Answers: bodies that are whole or come in pieces, and the headers that every answer carries.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

/// An answer.
pub type Reply = Response<Body>;

/// What follows the headers.
#[derive(Debug)]
pub enum Body {
    /// Known at once; `None` once it was taken.
    Whole(Option<Bytes>),
    /// Pieces, until whoever makes them stops. Dropped with the connection, which is how its maker learns of that.
    Pieces(mpsc::Receiver<Bytes>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces(pieces) => pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// What every answer says to browsers: take it for what it is called, keep no copy, show it in no other page.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// For everything but the page.
const NOTHING_RUNS: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// An answer with every header that all of them carry.
#[must_use]
pub fn reply(status: StatusCode, media_type: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(NOTHING_RUNS));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}

/// A sentence, with a line end.
#[must_use]
pub fn sentence(status: StatusCode, text: &str) -> Reply {
    let text = format!("{text}\n");
    reply(status, "text/plain; charset=utf-8", Body::Whole(Some(text.into())))
}

/// One JSON value, with a line end.
#[must_use]
pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Reply {
    let mut text = serde_json::to_string(value).expect("reports hold nothing that JSON cannot");
    text.push('\n');
    reply(status, "application/json", Body::Whole(Some(text.into())))
}

/// Adds a header whose value is made of numbers and words; one that no header may hold is left out.
pub fn add_header(reply: &mut Reply, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
