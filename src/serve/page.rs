//! The page: one answer without anything from elsewhere, and the policy that lets nothing else run in it.

use gst::glib;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};

use super::reply::{Body, Reply, reply};

const HTML: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page and its policy.
pub struct Page {
    html: Bytes,
    policy: HeaderValue,
}

impl Page {
    /// Puts style and script into the page and computes what the policy calls them.
    #[must_use]
    pub fn new() -> Self {
        let html = HTML.replace("/*style*/", STYLE).replace("/*script*/", SCRIPT);
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; img-src 'self' blob: data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            digest(STYLE),
            digest(SCRIPT)
        );
        let policy = HeaderValue::from_str(&policy).expect("the policy is made of words and base64");
        Self { html: html.into(), policy }
    }

    /// The answer.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let mut reply = reply(StatusCode::OK, "text/html; charset=utf-8", Body::Whole(Some(self.html.clone())));
        reply.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        reply
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

/// What a policy calls a text: its SHA-256 in base64.
fn digest(text: &str) -> String {
    let mut checksum = glib::Checksum::new(glib::ChecksumType::Sha256).expect("GLib computes SHA-256");
    checksum.update(text.as_bytes());
    format!("sha256-{}", glib::base64_encode(&checksum.digest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_one_that_browsers_compute() {
        // From the examples of the Content Security Policy standard.
        assert_eq!(digest("alert('Hello, world.');"), "sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng=");
    }

    #[test]
    fn the_page_is_whole_and_needs_nothing_from_elsewhere() {
        let page = Page::new();
        let html = std::str::from_utf8(&page.html).unwrap();
        assert!(html.contains(STYLE) && html.contains(SCRIPT), "style and script are where they belong");
        for foreign in ["http://", "https://", "//cdn", "@import", " style=\"", " onclick", "innerHTML", "eval("] {
            assert!(!html.contains(foreign), "{foreign:?} in the page");
        }
    }
}
