//! `CameraUrl`: where a camera is, without its user and password, and never showing a secret.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::SecretString;

use super::secret::{SecretFault, SecretStore, Template};

/// How an address is spoken to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// RTSP.
    Rtsp,
    /// RTSP inside TLS.
    Rtsps,
    /// HTTP.
    Http,
}

/// An `rtsp://`, `rtsps://` or `http://` address without user and password.
///
/// `Debug` and `Display` replace the values of what looks like a password or token in path and query by `***`;
/// [`CameraUrl::expose`] gives the whole text.
#[derive(Clone, PartialEq)]
pub struct CameraUrl {
    scheme: Scheme,
    text: Template,
}

/// An address taken apart: the rest, and what stood before the `@`, percent-decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct UrlParts {
    /// The address.
    pub url: CameraUrl,
    /// The user in the address.
    pub user: Option<Template>,
    /// The password in the address.
    pub password: Option<Template>,
}

/// Why a text is no address of a camera; contains no part of the text that could be a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UrlFault {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

const ENCODE_HINT: &str =
    "give user and password as keys of their own, or percent-encode them (`/` is %2F); an `@` of the path is %40";

impl UrlParts {
    /// Takes an address apart; path and query are kept as they are written.
    ///
    /// # Errors
    ///
    /// What keeps it from being an address.
    pub fn parse(text: &str) -> Result<Self, UrlFault> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return fault("it contains white space", "write %20 for a blank");
        }
        let (scheme, after) = text.split_once("://").ok_or_else(|| {
            fault_of("it has no scheme", "write rtsp://HOST:PORT/PATH, rtsps://HOST/PATH or http://HOST/PATH")
        })?;
        let protocol = check_scheme(scheme)?;
        let (authority, rest) = after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len()));
        let (userinfo, host_port) = match authority.rsplit_once('@') {
            Some((userinfo, host_port)) => (Some(userinfo), host_port),
            None => (None, authority),
        };
        check_host_port(host_port, rest.contains('@'))?;
        let text = template(&format!("{}://{host_port}{rest}", scheme.to_ascii_lowercase()))?;
        let (user, password) = split_userinfo(userinfo)?;
        Ok(Self { url: CameraUrl { scheme: protocol, text }, user, password })
    }
}

impl CameraUrl {
    /// How it is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The names of the secrets in path and query.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.text.references()
    }

    /// Whether a secret is written out in path or query.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        !secret_spans(&self.text.exposed()).is_empty()
    }

    /// The whole text, for the one who connects.
    #[must_use]
    pub fn expose(&self) -> String {
        self.text.exposed()
    }

    /// This address with every `${NAME}` replaced by its percent-encoded value.
    ///
    /// # Errors
    ///
    /// The first name that `store` cannot give.
    pub fn fill(&self, store: &SecretStore) -> Result<Self, SecretFault> {
        let encode = |secret: &str| utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
        Ok(Self { scheme: self.scheme, text: Template::literal(self.text.fill(store, encode)?) })
    }
}

impl fmt::Display for CameraUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.text.exposed()))
    }
}

impl fmt::Debug for CameraUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CameraUrl({self})")
    }
}

fn fault_of(what: impl Into<String>, hint: impl Into<String>) -> UrlFault {
    UrlFault { what: what.into(), hint: hint.into() }
}

fn fault<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, UrlFault> {
    Err(fault_of(what, hint))
}

fn template(text: &str) -> Result<Template, UrlFault> {
    Template::parse(text).map_err(|what| fault_of(what, "write `${NAME}`, or `$${` for a literal `${`"))
}

fn check_scheme(scheme: &str) -> Result<Scheme, UrlFault> {
    match scheme.to_ascii_lowercase().as_str() {
        "rtsp" => Ok(Scheme::Rtsp),
        "rtsps" => Ok(Scheme::Rtsps),
        "http" => Ok(Scheme::Http),
        "rtspt" | "rtspu" | "rtsph" | "rtspst" | "rtspsu" | "rtspsh" => {
            fault("the scheme chooses a transport", "write rtsp:// or rtsps:// and set `transport`")
        }
        "https" | "rtmp" | "rtmps" | "srt" | "udp" | "rtp" => fault(
            "this scheme is not supported",
            "supported: rtsp://, rtsps://, http:// (MJPEG); others through the key pipeline",
        ),
        _ => fault("the scheme is not one of a camera", "write rtsp://, rtsps:// or http://"),
    }
}

/// `later_at`: an `@` follows, so that the port may be a piece of a password.
fn check_host_port(host_port: &str, later_at: bool) -> Result<(), UrlFault> {
    let hint = if later_at { ENCODE_HINT } else { "write rtsp://HOST:PORT/PATH" };
    if host_port.starts_with("${") && host_port.ends_with('}') {
        return Ok(());
    }
    let (host, port) = match host_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => {
            check_ipv6(host)?;
            (None, port.strip_prefix(':').or((!port.is_empty()).then_some("")))
        }
        None => match host_port.rsplit_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(host_port), None),
        },
    };
    if let Some(port) = port {
        if later_at {
            return fault("an `@` follows the host, so it is unclear where the password ends", hint);
        }
        if !port.contains("${") && !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return fault("the port is not a number from 1 to 65535", hint);
        }
    }
    host.map_or(Ok(()), |host| check_host(host, hint))
}

fn check_ipv6(host: &str) -> Result<(), UrlFault> {
    let address = host.split_once('%').map_or(host, |(address, _zone)| address);
    match address.parse::<Ipv6Addr>() {
        Ok(_) => Ok(()),
        Err(_) => fault("what stands in brackets is not an IPv6 address", "write rtsp://[2001:db8::1]:554/PATH"),
    }
}

fn check_host(host: &str, hint: &str) -> Result<(), UrlFault> {
    if host.is_empty() {
        return fault("it has no host", hint);
    }
    if host.contains("${") {
        return Ok(());
    }
    if host.chars().all(|c| c.is_ascii_digit() || c == '.') && host.parse::<Ipv4Addr>().is_err() {
        return fault("the host is not an IPv4 address", "four numbers from 0 to 255: 10.0.0.21");
    }
    if host.len() > 253 || !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        return fault("the host is not a name", "a name of letters, digits, `-` and `.`; IPv6 stands in brackets");
    }
    Ok(())
}

type User = (Option<Template>, Option<Template>);

fn split_userinfo(userinfo: Option<&str>) -> Result<User, UrlFault> {
    let Some(userinfo) = userinfo else { return Ok((None, None)) };
    let decode = |text: &str| {
        let decode = |literal: &str| {
            let text = percent_decode_str(literal).decode_utf8().map_err(|_| "it is not UTF-8 when percent-decoded")?;
            if text.chars().any(char::is_control) {
                return Err("it contains control characters when percent-decoded".to_owned());
            }
            Ok(SecretString::from(text.as_ref()))
        };
        template(text)?.map_literals(decode).map_err(|what| fault_of(what, ENCODE_HINT))
    };
    let (user, password) = match userinfo.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (userinfo, None),
    };
    let password = password.filter(|text| !text.is_empty()).map(decode).transpose()?;
    Ok((Some(user).filter(|text| !text.is_empty()).map(decode).transpose()?, password))
}

/// A copy of any text in which secrets of an address are replaced by `***`.
#[must_use]
pub fn redacted(text: &str) -> String {
    let (mut out, mut from) = (String::new(), 0);
    for span in secret_spans(text) {
        out.push_str(&text[from..span.start]);
        out.push_str("***");
        from = span.end;
    }
    out + &text[from..]
}

/// Where a text that holds an address holds secrets: before the `@`, and the values of what looks like a password.
///
/// Sorted, without overlap. Rather hides too much than too little.
#[must_use]
pub fn secret_spans(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut from = 0;
    if let Some(scheme) = text.find("://") {
        from = scheme + 3;
        let after = &text[from..];
        let authority = &after[..after.find(['/', '?', '#']).unwrap_or(after.len())];
        let last_at = if authority.contains([':', '@']) { after.rfind('@') } else { None };
        if let Some(at) = last_at {
            spans.push(from..from + at);
            from += at;
        }
    }
    while let Some(equals) = text[from..].find('=').map(|at| from + at) {
        from = equals + 1;
        let name = text[..equals].rsplit(['?', '&', ';', '/', '=', '#']).next().unwrap_or_default();
        let value = value_span(text, from);
        if looks_secret(name) && !value.is_empty() && !is_reference(&text[value.clone()]) {
            from = value.end;
            spans.push(value);
        }
    }
    spans
}

/// The value that begins at `start`: up to a separator, or up to the next `_name=` that some cameras put into a path.
fn value_span(text: &str, start: usize) -> Range<usize> {
    let value = &text[start..];
    let value = &value[..value.find(['&', ';', '/', '?', '#']).unwrap_or(value.len())];
    let end = match value.find('=').and_then(|equals| value[..equals].rfind('_')) {
        Some(underscore) => underscore,
        None => value.len(),
    };
    start..start + end
}

fn is_reference(value: &str) -> bool {
    value.starts_with("${") && value.ends_with('}') && value.matches('}').count() == 1
}

/// Whether a key of this name holds a secret.
#[must_use]
pub fn looks_secret(name: &str) -> bool {
    let name = percent_decode_str(name).decode_utf8_lossy().to_lowercase();
    let name: String = name.chars().filter(|c| c.is_alphanumeric()).collect();
    let parts = ["pass", "pwd", "token", "auth", "secret", "credential", "signature"];
    parts.iter().any(|part| name.contains(part)) || ["key", "pw", "sig"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const HARD: &str = "p@ss:w/rd#%?";
    const HARD_ENCODED: &str = "p%40ss%3Aw%2Frd%23%25%3F";

    fn plain(template: Option<&Template>) -> Option<String> {
        template.map(Template::exposed)
    }

    fn parse(text: &str) -> UrlParts {
        UrlParts::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"))
    }

    #[test]
    fn user_and_password_leave_the_address_and_are_decoded() {
        let parts = parse(&format!("rtsp://viewer:{HARD_ENCODED}@10.0.0.21:554/a%20b?x=1"));
        assert_eq!(parts.url.expose(), "rtsp://10.0.0.21:554/a%20b?x=1");
        assert_eq!(plain(parts.user.as_ref()).as_deref(), Some("viewer"));
        assert_eq!(plain(parts.password.as_ref()).as_deref(), Some(HARD));
    }

    #[test]
    fn a_password_with_an_at_or_a_colon_need_not_be_encoded() {
        let parts = parse("rtsp://viewer:p@ss:word@10.0.0.21/x");
        assert_eq!(plain(parts.password.as_ref()).as_deref(), Some("p@ss:word"));
        assert_eq!(parts.url.expose(), "rtsp://10.0.0.21/x");
    }

    #[test]
    fn a_password_with_a_raw_slash_is_refused_without_being_shown() {
        for text in [
            format!("rtsp://viewer:{HARD}@10.0.0.21/x"),
            "rtsp://viewer:12/34@10.0.0.21/x".to_owned(),
            "rtsp://viewer:p@ss:12/34@10.0.0.21/x".to_owned(),
            "rtsp://viewer:pa/ss@10.0.0.21/x".to_owned(),
            "rtsp://viewer:pa#ss@10.0.0.21/x".to_owned(),
        ] {
            let fault = UrlParts::parse(&text).unwrap_err();
            assert_eq!(fault.hint, ENCODE_HINT, "{text}");
            for piece in ["p@ss", "12", "34", "pa/", "pa#", "ss@"] {
                assert!(!format!("{fault:?}").contains(piece), "{fault:?}");
            }
        }
    }

    #[test]
    fn addresses_that_cameras_use_are_kept_as_they_are() {
        for text in [
            "rtsp://10.0.0.21:554/Streaming/Channels/101?transportmode=unicast&profile=Profile_1",
            "rtsp://cam.local/cam/realmonitor?channel=1&subtype=0",
            "rtsp://[2001:db8::1]:8554/h264",
            "rtsp://[fe80::1%25eth0]/x",
            "rtsps://cam/p@th",
            "rtsp://10.0.0.21",
            "rtsp://${front_host}/live",
            "rtsp://${front_host}:${front_port}/live",
        ] {
            let parts = parse(text);
            assert_eq!(parts.url.expose(), text);
            assert_eq!(parts.url.to_string(), text);
            assert_eq!((parts.user, parts.password), (None, None));
        }
        assert_eq!(parse("rtsps://cam").url.scheme(), Scheme::Rtsps);
        assert_eq!(parse("HTTP://cam/mjpeg").url.scheme(), Scheme::Http);
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, what) in [
            ("10.0.0.21/x", "it has no scheme"),
            ("rtsp://", "it has no host"),
            ("rtsp://:554/x", "it has no host"),
            ("rtsp://10.0.0.300/x", "the host is not an IPv4 address"),
            ("rtsp://host:0/x", "the port is not a number from 1 to 65535"),
            ("rtsp://host:99999/x", "the port is not a number from 1 to 65535"),
            ("rtsp://host:/x", "the port is not a number from 1 to 65535"),
            ("rtsp://[::1/x", "the host is not a name"),
            ("rtsp://[zz]/x", "what stands in brackets is not an IPv6 address"),
            ("rtsp://[::1]x/x", "the port is not a number from 1 to 65535"),
            ("rtsp://ho st/x", "it contains white space"),
            ("rtsp://höst/x", "the host is not a name"),
            ("ftp://host/x", "the scheme is not one of a camera"),
            ("rtspt://host/x", "the scheme chooses a transport"),
            ("https://host/x", "this scheme is not supported"),
            ("rtsp://u:${p@host/x", "`${` without `}`"),
        ] {
            assert_eq!(UrlParts::parse(text).unwrap_err().what, what, "{text}");
        }
    }

    #[test]
    fn secrets_in_path_and_query_are_not_shown() {
        for (text, shown) in [
            ("rtsp://h/x?user=a&password=hunter2&c=1", "rtsp://h/x?user=a&password=***&c=1"),
            ("rtsp://h/x?PWD=hunter2", "rtsp://h/x?PWD=***"),
            ("rtsp://h/x?pass%77ord=hunter2", "rtsp://h/x?pass%77ord=***"),
            ("rtsp://h/x?access_token=hunter2#frag", "rtsp://h/x?access_token=***#frag"),
            ("rtsp://h/x?authToken=a=b&y=2", "rtsp://h/x?authToken=***&y=2"),
            (
                "rtsp://h/user=admin_password=hunter2_channel=1_stream=0.sdp",
                "rtsp://h/user=admin_password=***_channel=1_stream=0.sdp",
            ),
            ("rtsp://h/x?keyframe=1", "rtsp://h/x?keyframe=1"),
            ("rtsp://h/x?password=${pw}", "rtsp://h/x?password=${pw}"),
        ] {
            let url = parse(text).url;
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("CameraUrl({shown})"));
            assert!(!format!("{:?}", parse(text)).contains("hunter2"));
        }
        assert_eq!(redacted("rtsp://viewer:p@ss/w@h/x"), "rtsp://***@h/x");
    }

    #[test]
    fn references_are_filled_encoded_in_the_address_and_plain_in_the_password() {
        let store = SecretStore::new(None, |_: &str| Some(HARD.into()), "/nowhere");
        let parts = parse("rtsp://${u}:x${pw}@h/x?password=${pw}");
        let url = parts.url.fill(&store).unwrap();
        assert_eq!(url.expose(), format!("rtsp://h/x?password={HARD_ENCODED}"));
        assert_eq!(url.to_string(), "rtsp://h/x?password=***");
        let password = parts.password.unwrap().fill(&store, str::to_owned).unwrap();
        assert_eq!(password.expose_secret(), format!("x{HARD}"));
    }
}
