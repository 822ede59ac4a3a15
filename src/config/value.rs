//! Values: what kinds there are, how each is read from TOML, and what is said when it cannot be.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use toml::de::DeValue;

use super::duration::{self, DurationRange};
use super::name::{self, did_you_mean};
use super::secret::Template;
use super::size::{FrameSize, SIDE_MAX};
use super::url::{UrlParts, redacted};
use crate::source::Rect;

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One of these words.
    Words(&'static [&'static str]),
    /// One of these words, or a value of another kind.
    Either(&'static [&'static str], &'static Kind),
    /// `true` or `false`.
    Flag,
    /// A whole number within these bounds.
    Integer {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// A duration within these bounds.
    Duration {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// The first and the longest wait, each within these bounds.
    DurationRange {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// Width and height in pixels.
    Size,
    /// Permission bits in octal.
    Mode,
    /// A group of the system.
    Group,
    /// The name of a GStreamer element.
    Element,
    /// The public name of a segment.
    Segment,
    /// A path; a relative one counts from the folder of the file that says it.
    Path,
    /// A SHA-256 in hexadecimal.
    Fingerprint,
    /// An address and port to listen on.
    Address,
    /// The address of a camera.
    Url,
    /// A user name, possibly with `${NAME}`.
    User,
    /// A password, possibly with `${NAME}`.
    Password,
    /// A GStreamer pipeline.
    Pipeline,
    /// `x,y,w,h`.
    Region,
    /// How bytes become floats.
    Normalize,
}

/// A value that was read; `Debug` and `Display` show no secret.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A word of the key's list.
    Word(&'static str),
    /// Yes or no.
    Flag(bool),
    /// A number.
    Integer(i64),
    /// A duration.
    Duration(Duration),
    /// Two durations.
    DurationRange(DurationRange),
    /// Pixels.
    Size(FrameSize),
    /// Permission bits.
    Mode(u32),
    /// A text that is no secret.
    Text(String),
    /// SHA-256 of a certificate.
    Fingerprint([u8; 32]),
    /// Part of a picture.
    Region(Rect),
    /// Mean and standard deviation of red, green and blue, on the scale of 0 to 1.
    MeanStd([f64; 3], [f64; 3]),
    /// An address, with what stood before its `@`.
    Url(Box<UrlParts>),
    /// A text shown as it is.
    User(Template),
    /// A text never shown.
    Password(Template),
    /// The text of a pipeline, without references; shown without what looks like a secret in it.
    Pipeline(Template),
}

/// Why a value cannot be taken; every text is free of secrets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// What was found, one line.
    pub title: String,
    /// What is to be seen at its place.
    pub label: String,
    /// What to do.
    pub hint: String,
}

impl Kind {
    /// Reads the value of the key `path`.
    ///
    /// # Errors
    ///
    /// A wrong type, a value out of range, a text that cannot be read.
    pub fn parse(&self, path: &str, value: &DeValue<'_>) -> Result<Value, Refusal> {
        match (self, value) {
            (Self::Either(words, other), DeValue::String(text)) => match word(words, text) {
                Some(word) => Ok(Value::Word(word)),
                None => other.parse_text(path, text).map_err(|refusal| {
                    Refusal { hint: format!("write {}", self.expects()), ..refusal }.or_word(text, words)
                }),
            },
            (Self::Either(_, other), _) if other.takes(value) => other.parse(path, value),
            (Self::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
            (Self::Integer { min, max }, DeValue::Integer(number)) => {
                let number = i64::from_str_radix(number.as_str(), number.radix());
                number.ok().filter(|number| (min..=max).contains(&number)).map(Value::Integer).ok_or_else(|| {
                    let title = format!("{path} = {} is out of range", shown(value));
                    self.refuse(title, format!("not between {min} and {max}"))
                })
            }
            (Self::Normalize, DeValue::Table(table)) => self.parse_normalize(path, table),
            (_, DeValue::String(text)) if self.takes(value) => self.parse_text(path, text),
            _ => Err(self.wrong_type(path, value)),
        }
    }

    fn takes(&self, value: &DeValue<'_>) -> bool {
        match self {
            Self::Flag => value.is_bool(),
            Self::Integer { .. } => value.is_integer(),
            Self::Either(_, other) => value.is_str() || other.takes(value),
            Self::Normalize => value.is_str() || value.is_table(),
            _ => value.is_str(),
        }
    }

    fn wrong_type(&self, path: &str, value: &DeValue<'_>) -> Refusal {
        let wanted = match self {
            Self::Flag => "true or false",
            Self::Integer { .. } => "an integer",
            Self::Normalize => "a string or a table",
            Self::Either(_, Self::Integer { .. }) => "an integer or a string",
            _ => "a string",
        };
        self.refuse(format!("{path} has the wrong type"), format!("this is {}, expected {wanted}", type_noun(value)))
    }

    fn refuse(&self, title: impl Into<String>, label: impl Into<String>) -> Refusal {
        Refusal { title: title.into(), label: label.into(), hint: format!("write {}", self.expects()) }
    }

    fn parse_text(&self, path: &str, text: &str) -> Result<Value, Refusal> {
        let refuse = |what: &str| self.refuse(format!("{path} = {:?} is not {}", redacted(text), self.noun()), what);
        let hidden = |what: &str| self.refuse(format!("{path} is not {}", self.noun()), what);
        match self {
            Self::Words(words) => word(words, text)
                .map(Value::Word)
                .ok_or_else(|| refuse(&format!("not one of {}", words.join(", "))).or_word(text, words)),
            Self::Duration { min, max } => {
                let found = duration::parse(text).map_err(|what| refuse(&what))?;
                self.within(path, text, (*min, *max), &[found]).map(|()| Value::Duration(found))
            }
            Self::DurationRange { min, max } => {
                let found = DurationRange::parse(text).map_err(|what| refuse(&what))?;
                self.within(path, text, (*min, *max), &[found.first, found.max]).map(|()| Value::DurationRange(found))
            }
            Self::Size => FrameSize::parse(text).map(Value::Size).map_err(|what| refuse(&what)),
            Self::Mode => parse_mode(text).map(Value::Mode).map_err(|what| refuse(&what)),
            Self::Fingerprint => parse_fingerprint(text).map(Value::Fingerprint).map_err(|what| refuse(&what)),
            Self::Url => UrlParts::parse(text).map(|parts| Value::Url(Box::new(parts))).map_err(|fault| Refusal {
                title: format!("{path} is not an address of a camera"),
                label: fault.what,
                hint: fault.hint,
            }),
            Self::User => parse_template(text).map(Value::User).map_err(|what| hidden(&what)),
            Self::Password => parse_template(text).map(Value::Password).map_err(|what| hidden(&what)),
            Self::Region => parse_region(text).map(Value::Region).map_err(|what| refuse(&what)),
            Self::Normalize if text == "0..1" => Ok(Value::Text(text.to_owned())),
            Self::Normalize => Err(refuse("not a range of floats that is known")),
            Self::Pipeline => self
                .check_text(text)
                .map(|()| Value::Pipeline(Template::literal(SecretString::from(text))))
                .map_err(|what| refuse(&what)),
            _ => self.check_text(text).map(|()| Value::Text(text.to_owned())).map_err(|what| refuse(&what)),
        }
    }

    fn check_text(&self, text: &str) -> Result<(), String> {
        let plain = |extra: &str| text.chars().find(|c| !c.is_ascii_alphanumeric() && !extra.contains(*c));
        match self {
            _ if text.is_empty() => Err("it is empty".to_owned()),
            // A long one has several lines.
            Self::Pipeline if !text.chars().any(|c| c.is_control() && c != '\n') => Ok(()),
            _ if text.chars().any(char::is_control) => Err("it contains control characters".to_owned()),
            Self::Path if text.contains("://") => Err("it is an address".to_owned()),
            Self::Segment => name::check_segment(text),
            Self::Group | Self::Element => match plain("-_") {
                Some(c) => Err(format!("{c:?} is not allowed")),
                None => Ok(()),
            },
            Self::Address => match text.parse::<std::net::SocketAddr>() {
                Ok(_) => Ok(()),
                Err(_) => Err("it is not an IP address with a port".to_owned()),
            },
            _ => Ok(()),
        }
    }

    fn within(&self, path: &str, text: &str, bounds: (Duration, Duration), found: &[Duration]) -> Result<(), Refusal> {
        let (min, max) = bounds;
        if found.iter().all(|found| (min..=max).contains(found)) {
            return Ok(());
        }
        let label = format!("not between {} and {}", duration::format(min), duration::format(max));
        Err(self.refuse(format!("{path} = {:?} is out of range", redacted(text)), label))
    }

    fn parse_normalize(&self, path: &str, table: &toml::de::DeTable<'_>) -> Result<Value, Refusal> {
        let number = |value: &DeValue<'_>| match value {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n as f64),
            DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
            _ => None,
        };
        let numbers = |name: &str| -> Option<[f64; 3]> {
            let array = table.get(name)?.get_ref().as_array()?;
            let found: Option<Vec<f64>> = array.iter().map(|value| number(value.get_ref())).collect();
            found?.try_into().ok().filter(|found: &[f64; 3]| found.iter().all(|value| value.is_finite()))
        };
        let refuse = |what: &str| Err(self.refuse(format!("{path} is not {}", self.noun()), what));
        match (numbers("mean"), numbers("std")) {
            (Some(_), Some(std)) if std.iter().any(|std| *std <= 0.0) => refuse("a std is not above 0"),
            (Some(mean), Some(std)) if table.len() == 2 => Ok(Value::MeanStd(mean, std)),
            _ => refuse("not a mean and a std of three numbers each"),
        }
    }

    /// What the key takes, as a noun.
    #[must_use]
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Words(_) => "one of its words",
            Self::Either(_, other) => other.noun(),
            Self::Flag => "true or false",
            Self::Integer { .. } => "an integer",
            Self::Duration { .. } => "a duration",
            Self::DurationRange { .. } => "a range of durations",
            Self::Size => "a size",
            Self::Mode => "a file mode",
            Self::Group => "a group",
            Self::Element => "a decoder",
            Self::Segment => "a segment name",
            Self::Path => "a path",
            Self::Fingerprint => "a SHA-256",
            Self::Address => "an address",
            Self::Url => "an address of a camera",
            Self::User => "a user name",
            Self::Password => "a password",
            Self::Pipeline => "a pipeline",
            Self::Region => "a region",
            Self::Normalize => "a range of floats",
        }
    }

    /// What the key takes, in words for hints and documentation: the range of the key.
    #[must_use]
    pub fn expects(&self) -> String {
        let span = |min: &Duration, max: &Duration| format!("{} to {}", duration::format(*min), duration::format(*max));
        match self {
            Self::Words(words) => format!("one of {}", words.join(", ")),
            Self::Either(words, other) => format!("{}, or {}", words.join(", "), other.expects()),
            Self::Flag => "true or false".to_owned(),
            Self::Integer { min, max } if min == max => min.to_string(),
            Self::Integer { min, max } => format!("an integer, {min} to {max}"),
            Self::Duration { min, max } => format!("a duration, {}", span(min, max)),
            Self::DurationRange { min, max } => {
                format!("the first and the longest wait, \"5s..60s\", {}", span(min, max))
            }
            Self::Size => "width and height in pixels, such as \"1920x1080\", 16 to 16384 each".to_owned(),
            Self::Mode => "octal digits in quotes, such as \"0640\"".to_owned(),
            Self::Group => "the name of a group".to_owned(),
            Self::Element => "the name of a GStreamer element".to_owned(),
            Self::Segment => {
                "up to 255 of letters, digits, `.`, `-` and `_`, beginning with a letter or digit".to_owned()
            }
            Self::Path => "a path; a relative one counts from the folder of this file".to_owned(),
            Self::Fingerprint => "64 hexadecimal digits; colons are allowed".to_owned(),
            Self::Address => "an IP address and port, such as \"127.0.0.1:9178\"".to_owned(),
            Self::Url => "rtsp://HOST:PORT/PATH, rtsps://HOST/PATH or http://HOST/PATH".to_owned(),
            Self::User => "a user name or ${NAME}".to_owned(),
            Self::Password => "${NAME} or a password; $${ stands for a literal ${".to_owned(),
            Self::Pipeline => "a GStreamer pipeline that ends in `appsink name=out`".to_owned(),
            Self::Region => "x,y,w,h in pixels of the source, such as \"0,0,1920,1080\"".to_owned(),
            Self::Normalize => "\"0..1\" or { mean = [r, g, b], std = [r, g, b] }".to_owned(),
        }
    }
}

impl Refusal {
    /// Puts a likely word in front of the hint.
    fn or_word(mut self, found: &str, words: &[&str]) -> Self {
        if let Some(word) = did_you_mean(&found.to_lowercase(), words.iter().copied()) {
            self.hint = format!("did you mean \"{word}\"?");
        }
        self
    }
}

/// The type of a value with its article.
pub(crate) fn type_noun(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn word(words: &'static [&'static str], text: &str) -> Option<&'static str> {
    words.iter().copied().find(|word| *word == text)
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(number) => number.to_string(),
        other => type_noun(other).to_owned(),
    }
}

fn parse_template(text: &str) -> Result<Template, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("it contains control characters".to_owned());
    }
    Template::parse(text)
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let is_octal = (3..=4).contains(&text.len()) && text.chars().all(|c| ('0'..='7').contains(&c));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal).ok_or("it is not three or four octal digits")?;
    match mode {
        _ if mode > 0o777 => Err("set-user-id, set-group-id and sticky bits have no place here".to_owned()),
        _ if mode & 0o600 != 0o600 => Err("the owner must be able to read and write".to_owned()),
        _ if mode & 0o111 != 0 => Err("a ring cannot be executed".to_owned()),
        _ if mode & 0o002 != 0 => Err("everybody could overwrite the frames".to_owned()),
        _ => Ok(mode),
    }
}

fn parse_fingerprint(text: &str) -> Result<[u8; 32], String> {
    let digits: Vec<u32> = text.chars().filter(|c| *c != ':').filter_map(|c| c.to_digit(16)).collect();
    if digits.len() != text.chars().filter(|c| *c != ':').count() {
        return Err("it contains something else than hexadecimal digits".to_owned());
    }
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect();
    let wrong_length = |_| format!("it has {} digits", digits.len());
    if digits.len() == 64 { bytes.try_into().map_err(wrong_length) } else { Err(wrong_length(Vec::new())) }
}

fn parse_region(text: &str) -> Result<Rect, String> {
    let numbers: Option<Vec<u32>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some([x, y, width, height]) if *width > 0 && *height > 0 => {
            if [x, y, width, height].into_iter().any(|number| *number > SIDE_MAX) {
                return Err(format!("a number is above {SIDE_MAX}"));
            }
            Ok(Rect { x: *x, y: *y, width: *width, height: *height })
        }
        Some([_, _, _, _]) => Err("width and height must not be 0".to_owned()),
        _ => Err("it is not four numbers with commas".to_owned()),
    }
}

impl fmt::Display for Value {
    /// As TOML; a password as `***`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::MeanStd(..) => f.write_str(&self.text()),
            other => write!(f, "{}", toml::Value::String(other.text())),
        }
    }
}

impl Value {
    /// As text, without quotes; a password as `***`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Word(word) => (*word).to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Duration(found) => duration::format(*found),
            Self::DurationRange(range) => range.to_string(),
            Self::Size(size) => size.to_string(),
            Self::Mode(mode) => format!("{mode:04o}"),
            Self::Text(text) => redacted(text),
            Self::Region(Rect { x, y, width, height }) => format!("{x},{y},{width},{height}"),
            Self::MeanStd(mean, std) => format!("{{ mean = {mean:?}, std = {std:?} }}"),
            Self::Fingerprint(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            Self::Url(parts) => parts.url.to_string(),
            Self::User(template) => template.exposed(),
            Self::Password(template) => template.to_string(),
            Self::Pipeline(template) => redacted(&template.exposed()),
        }
    }

    /// A value given on the command line or from a pipe, taken as it is: nothing in it is a reference.
    #[must_use]
    pub fn plain_password(secret: SecretString) -> Self {
        Self::Password(Template::literal(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: Kind, toml: &str) -> Result<Value, Refusal> {
        kind.parse("key", DeValue::parse(toml).unwrap().get_ref())
    }

    const SECONDS: Kind = Kind::Duration { min: Duration::from_secs(1), max: Duration::from_secs(60) };
    const AUTO: Kind = Kind::Either(&["auto"], &SECONDS);

    #[test]
    fn every_kind_reads_back_what_it_writes() {
        let fingerprint = format!("'{}'", "0f".repeat(32));
        for (kind, toml) in [
            (Kind::Words(&["tcp", "udp"]), "'udp'"),
            (AUTO, "'auto'"),
            (AUTO, "'5s'"),
            (Kind::Flag, "true"),
            (Kind::Integer { min: 3, max: 256 }, "0x10"),
            (Kind::DurationRange { min: Duration::ZERO, max: Duration::MAX }, "'5s..1m'"),
            (Kind::Size, "'1920x1080'"),
            (Kind::Mode, "'0640'"),
            (Kind::Group, "'video'"),
            (Kind::Element, "'vah264dec'"),
            (Kind::Segment, "'camring.front'"),
            (Kind::Path, "'/a b'"),
            (Kind::Fingerprint, fingerprint.as_str()),
            (Kind::Address, "'127.0.0.1:9178'"),
            (Kind::Url, "'rtsp://h/x'"),
            (Kind::User, "'viewer'"),
            (Kind::Password, "'${pw}'"),
            (Kind::Region, "'0,0,10,10'"),
            (Kind::Pipeline, "'videotestsrc ! appsink name=out'"),
            (Kind::Normalize, "'0..1'"),
            (Kind::Normalize, "{ mean = [0.485, 0.456, 1], std = [0.229, 0.224, 0.225] }"),
        ] {
            let value = parse(kind, toml).unwrap_or_else(|refusal| panic!("{toml}: {refusal:?}"));
            assert_eq!(parse(kind, &value.to_string()).as_ref(), Ok(&value), "{toml}");
        }
    }

    #[test]
    fn a_wrong_type_names_both_types_and_no_value() {
        let refusal = parse(AUTO, "5").unwrap_err();
        assert_eq!(refusal.title, "key has the wrong type");
        assert_eq!(refusal.label, "this is an integer, expected a string");
        assert_eq!(refusal.hint, "write auto, or a duration, 1s to 1m");
        assert_eq!(parse(Kind::Flag, "'yes'").unwrap_err().label, "this is a string, expected true or false");
        assert_eq!(parse(Kind::Size, "[1]").unwrap_err().label, "this is an array, expected a string");
    }

    #[test]
    fn bounds_are_inclusive() {
        let slots = Kind::Integer { min: 3, max: 256 };
        assert!(parse(slots, "3").is_ok() && parse(slots, "256").is_ok());
        for out in ["2", "257", "-3", "99999999999999999999"] {
            let refusal = parse(slots, out).unwrap_err();
            assert_eq!(refusal.title, format!("key = {out} is out of range"));
            assert_eq!(refusal.label, "not between 3 and 256");
        }
        assert!(parse(SECONDS, "'1s'").is_ok() && parse(SECONDS, "'60s'").is_ok());
        assert_eq!(parse(SECONDS, "'61s'").unwrap_err().label, "not between 1s and 1m");
    }

    #[test]
    fn a_mistyped_word_is_recognised() {
        let refusal = parse(Kind::Words(&["tcp", "udp"]), "'tpc'").unwrap_err();
        assert_eq!(refusal.label, "not one of tcp, udp");
        assert_eq!(refusal.hint, "did you mean \"tcp\"?");
        assert_eq!(parse(AUTO, "'Auto'").unwrap_err().hint, "did you mean \"auto\"?");
    }

    #[test]
    fn modes_that_make_no_sense_are_refused() {
        assert_eq!(parse(Kind::Mode, "'640'"), Ok(Value::Mode(0o640)));
        for (mode, what) in [
            ("'0888'", "it is not three or four octal digits"),
            ("'+640'", "it is not three or four octal digits"),
            ("'4640'", "set-user-id, set-group-id and sticky bits have no place here"),
            ("'0440'", "the owner must be able to read and write"),
            ("'0750'", "a ring cannot be executed"),
            ("'0666'", "everybody could overwrite the frames"),
        ] {
            assert_eq!(parse(Kind::Mode, mode).unwrap_err().label, what);
        }
    }

    #[test]
    fn a_refused_password_or_address_is_not_repeated() {
        for (kind, toml) in [
            (Kind::Password, "'hunter2${'"),
            (Kind::User, "'hunter2${'"),
            (Kind::Url, "'rtsp://u:hunter2/@h'"),
            (Kind::Password, "1234"),
        ] {
            let refusal = parse(kind, toml).unwrap_err();
            assert!(!format!("{refusal:?}").contains("hunter2") && !format!("{refusal:?}").contains("1234"));
        }
        let password = parse(Kind::Password, "'hunter2'").unwrap();
        assert_eq!(password.to_string(), "\"***\"");
        assert!(!format!("{password:?}").contains("hunter2"));
    }

    #[test]
    fn regions_and_normalisations_that_make_no_picture_are_refused() {
        for (kind, toml, what) in [
            (Kind::Region, "'0,0,10'", "it is not four numbers with commas"),
            (Kind::Region, "'0,0,10,0'", "width and height must not be 0"),
            (Kind::Region, "'-2,0,10,10'", "it is not four numbers with commas"),
            (Kind::Region, "'0,0,10,20000'", "a number is above 16384"),
            (Kind::Normalize, "'0..255'", "not a range of floats that is known"),
            (Kind::Normalize, "{ mean = [0, 0, 0] }", "not a mean and a std of three numbers each"),
            (Kind::Normalize, "{ mean = [0, 0], std = [1, 1, 1] }", "not a mean and a std of three numbers each"),
            (Kind::Normalize, "{ mean = [0, 0, nan], std = [1, 1, 1] }", "not a mean and a std of three numbers each"),
            (Kind::Normalize, "{ mean = [0, 0, 0], std = [1, 0, 1] }", "a std is not above 0"),
        ] {
            assert_eq!(parse(kind, toml).unwrap_err().label, what, "{toml}");
        }
    }

    #[test]
    fn fingerprints_have_64_digits() {
        let colons = format!("'{}'", vec!["AB"; 32].join(":"));
        assert_eq!(parse(Kind::Fingerprint, &colons), Ok(Value::Fingerprint([0xab; 32])));
        assert_eq!(parse(Kind::Fingerprint, "'abc'").unwrap_err().label, "it has 3 digits");
        assert!(parse(Kind::Fingerprint, &format!("'{}'", "zz".repeat(32))).is_err());
    }
}
