//! Who may ask for what: methods, lengths, the Host and Origin that keep other web sites out, the token.

use std::net::IpAddr;

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, StatusCode};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::reply::{Reply, sentence};

/// Longest path and query.
const TARGET_MAX: usize = 2048;
/// Shortest token that is accepted.
pub const TOKEN_MIN: usize = 16;

/// Decides about every request before anything else looks at it.
#[derive(Debug)]
pub struct Gate {
    token: Option<SecretString>,
}

impl Gate {
    /// With a token everybody who knows it may ask, from any name of this host; without one only pages of this very
    /// address, by number or as localhost.
    #[must_use]
    pub fn new(token: Option<SecretString>) -> Self {
        Self { token }
    }

    /// # Errors
    ///
    /// The answer to a request that is not to be looked at any further.
    pub fn check(&self, request: &Parts) -> Result<(), Box<Reply>> {
        let refuse = |status, text: &str| Err(Box::new(sentence(status, text)));
        if request.uri.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_MAX) {
            return refuse(StatusCode::URI_TOO_LONG, &format!("an address here has at most {TARGET_MAX} characters"));
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            let mut reply =
                sentence(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here: ask with GET or HEAD");
            reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Err(Box::new(reply));
        }
        let Some(host) = only_host(request) else {
            return refuse(StatusCode::BAD_REQUEST, "expected exactly one Host header with a name or address");
        };
        if self.token.is_none() && !is_this_machine(host.host()) {
            return refuse(
                StatusCode::FORBIDDEN,
                "asked under a name; without a token this service answers to localhost and to IP addresses only, so \
                 that no web site can read it through a browser; a proxy in front is to send its address as Host",
            );
        }
        if !self.has_token(request) {
            let mut reply = sentence(
                StatusCode::UNAUTHORIZED,
                "expected the token of camring serve: `Authorization: Bearer TOKEN`, or ?token=TOKEN",
            );
            reply.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Err(Box::new(reply));
        }
        if is_from_another_site(&request.headers, &host) {
            return refuse(StatusCode::FORBIDDEN, "asked by a page of another site; open this service's own page");
        }
        Ok(())
    }

    fn has_token(&self, request: &Parts) -> bool {
        let Some(token) = &self.token else { return true };
        let is_it = |found: &[u8]| constant_time_eq::constant_time_eq(found, token.expose_secret().as_bytes());
        let bearer = request.headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().split_at_checked(7));
        if let Some((scheme, found)) = bearer {
            return scheme.eq_ignore_ascii_case(b"bearer ") && is_it(found);
        }
        query(request, "token").is_some_and(|found| is_it(found.as_bytes()))
    }
}

/// The value of a key of the query, decoded; the first when it stands there twice.
#[must_use]
pub fn query(request: &Parts, key: &str) -> Option<String> {
    let pairs = request.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.into_iter().find(|(name, _)| *name == key)?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

/// The Host of a request that has one and is not meant for a proxy.
fn only_host(request: &Parts) -> Option<Authority> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    if hosts.next().is_some() || request.uri.authority().is_some() || host.contains('@') {
        return None;
    }
    host.parse().ok()
}

/// Names can be made to lead here by whoever owns them; numbers and localhost cannot.
fn is_this_machine(host: &str) -> bool {
    let number = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || number.parse::<IpAddr>().is_ok()
}

/// By what browsers say: the Origin of a page's request, and where a picture or a script is to be shown.
fn is_from_another_site(headers: &HeaderMap, host: &Authority) -> bool {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("null");
        let place = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if !place.is_some_and(|place| place.eq_ignore_ascii_case(host.as_str())) {
            return true;
        }
    }
    let says = |name: &str, words: &[&str]| {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| words.contains(&value))
    };
    // A link on another site may be followed: what it leads to is then shown to the person alone.
    says("sec-fetch-site", &["cross-site", "same-site"]) && !says("sec-fetch-mode", &["navigate"])
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn verdict(token: Option<&str>, target: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let gate = Gate::new(token.map(SecretString::from));
        gate.check(&parts).map_or_else(|reply| reply.status().as_u16(), |()| 200)
    }

    #[test]
    fn without_a_token_numbers_and_localhost_are_let_in_and_names_are_not() {
        for host in ["127.0.0.1:9178", "127.0.0.1", "[::1]:9178", "localhost:9178", "LOCALHOST", "10.0.0.9:80"] {
            assert_eq!(verdict(None, "/", &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:9178", "127.0.0.1.evil.example", "camring"] {
            assert_eq!(verdict(None, "/", &[("host", host)]), 403, "{host}");
        }
        for hosts in
            [&[][..], &[("host", "127.0.0.1"), ("host", "127.0.0.1")], &[("host", "a@127.0.0.1")], &[("host", "")]]
        {
            assert_eq!(verdict(None, "/", hosts), 400, "{hosts:?}");
        }
        assert_eq!(verdict(None, "http://127.0.0.1/", &[("host", "127.0.0.1")]), 400, "a request to a proxy");
    }

    #[test]
    fn pages_of_other_sites_are_refused_and_links_on_them_are_not() {
        let host = ("host", "127.0.0.1:9178");
        assert_eq!(verdict(None, "/", &[host, ("origin", "http://127.0.0.1:9178")]), 200);
        for origin in ["http://evil.example", "null", "http://127.0.0.1:80", "http://localhost:9178", "x"] {
            assert_eq!(verdict(None, "/", &[host, ("origin", origin)]), 403, "{origin}");
        }
        let cross = ("sec-fetch-site", "cross-site");
        assert_eq!(verdict(None, "/", &[host, cross, ("sec-fetch-mode", "no-cors")]), 403);
        assert_eq!(verdict(None, "/", &[host, cross, ("sec-fetch-mode", "navigate")]), 200);
        assert_eq!(verdict(None, "/", &[host, ("sec-fetch-site", "same-origin")]), 200);
    }

    #[test]
    fn the_token_is_taken_from_the_header_or_the_query_and_nothing_else_is() {
        let (token, host) = (Some("0123456789abcdef+/"), ("host", "cams.example"));
        assert_eq!(verdict(token, "/", &[host, ("authorization", "Bearer 0123456789abcdef+/")]), 200);
        assert_eq!(verdict(token, "/?a=b&token=0123456789abcdef%2B%2F", &[host]), 200);
        for (target, header) in [
            ("/", "Bearer 0123456789abcdef+"),
            ("/", "Bearer 0123456789abcdef+/x"),
            ("/", "Basic 0123456789abcdef+/"),
            ("/", "Bearer"),
            ("/?token=0123456789abcdef%2B%2F", "Bearer wrong"),
        ] {
            assert_eq!(verdict(token, target, &[host, ("authorization", header)]), 401, "{target} {header}");
        }
        for target in ["/", "/?token=", "/?token", "/?Token=0123456789abcdef%2B%2F"] {
            assert_eq!(verdict(token, target, &[host]), 401, "{target}");
        }
    }

    #[test]
    fn long_addresses_are_refused() {
        let long = format!("/?{}", "x".repeat(TARGET_MAX));
        assert_eq!(verdict(None, &long, &[("host", "127.0.0.1")]), 414);
    }
}
