//! Why a connect failed: rtspsrc says "Generic error" for all of it, so look again with plain sockets.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camring_ring::frame::Reason;

use super::arrival::mono_ns;

/// How long the second look may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// Where a camera is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Endpoint {
    pub host: String,
    pub port: u16,
    pub tls: bool,
    /// The protocol's name, for people.
    pub speaks: &'static str,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Looks for the cause of a failed connect; takes at most about 2 s. GStreamer must be initialised.
pub(super) fn look(endpoint: &Endpoint) -> (Reason, String) {
    let began_ns = mono_ns();
    let address = match resolve(endpoint) {
        Ok(address) => address,
        Err(sentence) => return (Reason::Dns, sentence),
    };
    let used = Duration::from_nanos(mono_ns().saturating_sub(began_ns).unsigned_abs());
    let left = DEADLINE.saturating_sub(used).max(Duration::from_millis(100));
    match TcpStream::connect_timeout(&address, left) {
        Ok(_) if endpoint.tls => (
            Reason::Tls,
            format!("{endpoint} accepts connections but the TLS handshake failed; check that the port speaks TLS"),
        ),
        Ok(_) => (
            Reason::ConnectTimeout,
            format!("the connection to {endpoint} failed, and a moment later the port was open; trying again"),
        ),
        Err(error) => describe(endpoint, &error),
    }
}

fn describe(endpoint: &Endpoint, error: &std::io::Error) -> (Reason, String) {
    match error.kind() {
        ErrorKind::ConnectionRefused => (
            Reason::ConnectRefused,
            format!(
                "{endpoint} refused the connection; check the port and that the camera's {speaks} server is on",
                speaks = endpoint.speaks
            ),
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => (
            Reason::ConnectTimeout,
            format!("{endpoint} did not answer within {} s; check address, cable and firewall", DEADLINE.as_secs()),
        ),
        _ => (Reason::ConnectTimeout, format!("{endpoint} cannot be reached: {error}; check address and routing")),
    }
}

/// Whether an earlier look-up still hangs in the resolver; only one is left behind at a time.
static LOOKUP_HANGS: AtomicBool = AtomicBool::new(false);

/// Looks the camera's name up, for at most 2 s; the error is the sentence for people.
pub(super) fn resolve(endpoint: &Endpoint) -> Result<SocketAddr, String> {
    if let Ok(address) = endpoint.host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, endpoint.port));
    }
    let silent = || {
        format!("no answer about host name {:?} within {} s; check the name servers", endpoint.host, DEADLINE.as_secs())
    };
    if LOOKUP_HANGS.swap(true, Ordering::AcqRel) {
        return Err(silent());
    }
    let (sender, answer) = crossbeam_channel::bounded(1);
    let (host, port) = (endpoint.host.clone(), endpoint.port);
    // The resolver knows no deadline of its own: it gets a thread that may outlive this call.
    let spawned = std::thread::Builder::new().name("camring-lookup".into()).spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(|mut addresses| addresses.next());
        LOOKUP_HANGS.store(false, Ordering::Release);
        // Nobody waits any more when the deadline has passed.
        drop(sender.send(found));
    });
    if let Err(error) = spawned {
        LOOKUP_HANGS.store(false, Ordering::Release);
        return Err(format!("cannot look up host name {:?}: {error}", endpoint.host));
    }
    match answer.recv_timeout(DEADLINE) {
        Ok(Ok(Some(address))) => Ok(address),
        Ok(Ok(None)) => Err(format!("host name {:?} has no address; check the name", endpoint.host)),
        Ok(Err(error)) => Err(format!("host name {:?} does not resolve ({error}); check the name", endpoint.host)),
        Err(_) => Err(silent()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn local(port: u16, tls: bool) -> Endpoint {
        Endpoint { host: "127.0.0.1".into(), port, tls, speaks: "RTSP" }
    }

    #[test]
    fn a_closed_port_is_told_from_an_open_one() {
        gst::init().expect("GStreamer");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        assert_eq!(look(&local(port, true)).0, Reason::Tls);
        assert_eq!(look(&local(port, false)).0, Reason::ConnectTimeout);
        drop(listener);
        let (reason, sentence) = look(&local(port, false));
        assert_eq!(reason, Reason::ConnectRefused);
        assert!(sentence.starts_with(&format!("127.0.0.1:{port} refused the connection; check")), "{sentence}");
    }

    #[test]
    fn a_name_that_does_not_exist_is_a_dns_failure() {
        gst::init().expect("GStreamer");
        let endpoint = Endpoint { host: "no-such-camera.invalid".into(), port: 554, tls: false, speaks: "RTSP" };
        assert_eq!(look(&endpoint).0, Reason::Dns);
    }

    #[test]
    fn addresses_of_version_six_are_bracketed() {
        let endpoint = Endpoint { host: "::1".into(), port: 554, tls: false, speaks: "RTSP" };
        assert_eq!(endpoint.to_string(), "[::1]:554");
    }
}
