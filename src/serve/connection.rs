//! Connections: how many, how slow they may be, and that they end with this process.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use super::route::Site;

/// Connections at a time; one beyond them is told so and closed.
pub const CONNECTIONS_MAX: usize = 128;
/// From the first moment of a connection, or the end of its last answer, to the end of a request's headers.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is gone.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Most bytes of a request's headers.
const HEADERS_MAX: usize = 16 << 10;
/// Most headers.
const HEADER_LINES_MAX: usize = 64;
/// A peer that vanished without a word is noticed after this, and three times [`PROBE_EVERY`].
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// Bytes on their way to one client; the kernel doubles it for its own use.
const SEND_BUFFER: usize = 256 << 10;
/// After an accept that failed (no descriptors left, for one) the next one waits so long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// What a connection too many hears.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n\
    Content-Type: text/plain\r\nContent-Length: 46\r\n\r\ntoo many connections; close some of the others";

/// Accepts connections until `stop` says so; those that are open then are cut.
pub async fn accept(listener: TcpListener, site: Arc<Site>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open = JoinSet::new();
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            // Ended connections are forgotten as they end.
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => drop(open.spawn(converse(stream, Arc::clone(&site), place))),
                // It either fits into the socket's empty buffer or the client hears nothing but the end.
                Err(_) => drop(stream.try_write(FULL)),
            },
            Err(error) => {
                if !told {
                    tracing::warn!(%error, "a connection could not be accepted");
                    told = true;
                }
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    open.shutdown().await;
}

async fn converse(stream: TcpStream, site: Arc<Site>, _place: OwnedSemaphorePermit) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, "a connection without keep-alive");
    }
    let service = service_fn(|request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, std::convert::Infallible>(site.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .max_buf_size(HEADERS_MAX)
        .max_headers(HEADER_LINES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    // What ends a connection is the client's business: it left, it was too slow, it spoke something else.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended");
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // What waits in a buffer gets old: a stream shows the newest picture, not all of them.
    sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    Ok(())
}

/// A stream whose writes fail when the peer takes nothing for [`WRITE_WITHIN`].
struct Patient {
    stream: TcpStream,
    limit: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self { stream, limit: Box::pin(tokio::time::sleep(WRITE_WITHIN)), is_waiting: false }
    }

    /// The result of a write that may have to wait.
    fn within<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_waiting = false;
            return written;
        }
        if !self.is_waiting {
            self.is_waiting = true;
            self.limit.as_mut().reset(Instant::now() + WRITE_WITHIN);
        }
        ready!(self.limit.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.within(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
