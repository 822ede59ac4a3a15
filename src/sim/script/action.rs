//! What a fault does: every action with its parameters, as written in a script and as carried out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::value::{Kind, Value};

/// How a connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// In order: everything that was sent arrives, then the end.
    Fin,
    /// At once, as when a device restarts.
    Rst,
}

/// What becomes of the connections that a camera has when it begins to refuse new ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Connections {
    /// They are reset.
    Cut,
    /// They go on.
    Keep,
}

/// What is wrong with a session description.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SdpFault {
    /// It has no content.
    Empty,
    /// It is no SDP.
    Malformed,
    /// It offers sound and no pictures.
    AudioOnly,
    /// It names a codec that nobody knows.
    UnknownCodec,
}

/// What is wrong with the sender reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reports {
    /// None is sent.
    None,
    /// Their clock is off by a fixed number of seconds.
    Shifted,
    /// Their clock is off by another number of seconds each time.
    Jumping,
}

/// What is wrong with the pictures.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PictureFault {
    /// The same picture again and again, stamp and all.
    Frozen,
    /// Black, but for the stamp.
    Black,
    /// The green of a decoder that lost its reference, but for the stamp.
    Green,
}

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Nothing is forwarded; connections stay.
    Stall,
    /// Everything is swallowed; connections stay.
    HalfOpen,
    /// New connections are refused.
    Refuse(Connections),
    /// Connections end.
    Cut {
        /// How.
        by: Ending,
        /// Whether in the middle of a packet.
        mid_packet: bool,
    },
    /// Requests are answered late.
    Slow {
        /// Which requests; `any` = all.
        method: &'static str,
        /// How late.
        delay: Duration,
    },
    /// Requests are never answered.
    NoAnswer {
        /// Which requests; `any` = all.
        method: &'static str,
    },
    /// Requests are answered with an error.
    Status {
        /// Which requests; `any` = all.
        method: &'static str,
        /// The status code.
        code: u16,
        /// What `Retry-After` says; zero = it is left out.
        retry_after: Duration,
    },
    /// Requests are answered with something that is not RTSP.
    Garbage,
    /// The session description is wrong.
    Sdp(SdpFault),
    /// There is only so much room for sessions.
    Sessions {
        /// How many there may be at a time.
        max: u8,
        /// What a SETUP beyond is answered with.
        code: u16,
    },
    /// The session ends unless RTSP requests keep it alive.
    SessionTimeout {
        /// Longest time between two requests.
        timeout: Duration,
        /// Whether requests count; otherwise it is the age at which the session ends.
        kept: bool,
    },
    /// The sender reports are wrong.
    Reports {
        /// How.
        reports: Reports,
        /// By how many seconds, or at most by how many.
        seconds: i64,
    },
    /// RTP packets are lost.
    Loss {
        /// How many of a hundred.
        percent: u8,
    },
    /// RTP packets come twice.
    Duplicate {
        /// How many of a hundred.
        percent: u8,
    },
    /// RTP packets come late, behind later ones.
    Reorder {
        /// How many of a hundred.
        percent: u8,
        /// Behind how many.
        by: u8,
    },
    /// Everything that the camera sends comes later.
    Delay {
        /// By how much.
        delay: Duration,
        /// By how much more at most, chosen for each packet.
        jitter: Duration,
    },
    /// Every RTP packet says that it is the last one of its picture.
    Marker,
    /// The camera's way to the client is narrow.
    Bandwidth {
        /// Bits per second, in thousands.
        kbit: u32,
    },
    /// The pictures are wrong.
    Picture(PictureFault),
}

/// Whether an action takes time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Span {
    /// It lasts for `for`, or until the camera stops.
    Lasting,
    /// It is over at once.
    Instant,
}

/// One parameter of an action.
#[derive(Debug)]
pub struct Parameter {
    /// Its key.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default, as TOML.
    pub default: &'static str,
}

/// One action as scripts spell it.
#[derive(Debug)]
pub struct KnownAction {
    /// What stands behind `do =`.
    pub word: &'static str,
    /// Whether `for` makes sense.
    pub span: Span,
    /// Its own keys.
    pub parameters: &'static [Parameter],
    pub(super) make: fn(&Values) -> Action,
}

/// Every action of a script, in the order of the documentation.
#[must_use]
pub fn known_actions() -> &'static [KnownAction] {
    ACTIONS
}

/// The values of all parameters of one fault.
#[derive(Debug, Default)]
pub(super) struct Values(pub(super) BTreeMap<&'static str, Value>);

const CHECKED: &str = "the table of actions gives every parameter a kind and a default";

impl Values {
    fn word(&self, name: &str) -> &'static str {
        match self.0.get(name) {
            Some(Value::Word(word)) => word,
            _ => panic!("{CHECKED}: {name}"),
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Value::Flag(true))
    }

    fn integer(&self, name: &str) -> i64 {
        match self.0.get(name) {
            Some(Value::Integer(number)) => *number,
            _ => panic!("{CHECKED}: {name}"),
        }
    }

    fn duration(&self, name: &str) -> Duration {
        match self.0.get(name) {
            Some(Value::Duration(duration)) => *duration,
            _ => panic!("{CHECKED}: {name}"),
        }
    }

    fn percent(&self) -> u8 {
        u8::try_from(self.integer("percent")).expect("at most 100")
    }
}

const METHODS: Kind = Kind::Words(&["any", "OPTIONS", "DESCRIBE", "SETUP", "PLAY", "GET_PARAMETER", "TEARDOWN"]);
const METHOD: Parameter = Parameter { name: "method", kind: METHODS, default: "\"DESCRIBE\"" };
const PERCENT: Kind = Kind::Integer { min: 1, max: 100 };
/// 136 years, the span of the clock of a sender report.
const ERA_SECONDS: i64 = 1 << 32;

const fn lasting(shortest: Duration) -> Kind {
    Kind::Duration { min: shortest, max: Duration::from_secs(86_400) }
}

const fn known(word: &'static str, parameters: &'static [Parameter], make: fn(&Values) -> Action) -> KnownAction {
    KnownAction { word, span: Span::Lasting, parameters, make }
}

const ACTIONS: &[KnownAction] = &[
    known("stall", &[], |_| Action::Stall),
    known("half-open", &[], |_| Action::HalfOpen),
    known(
        "refuse",
        &[Parameter { name: "connections", kind: Kind::Words(&["cut", "keep"]), default: "\"cut\"" }],
        |values| {
            Action::Refuse(if values.word("connections") == "keep" { Connections::Keep } else { Connections::Cut })
        },
    ),
    KnownAction {
        word: "cut",
        span: Span::Instant,
        parameters: &[
            Parameter { name: "by", kind: Kind::Words(&["fin", "rst"]), default: "\"rst\"" },
            Parameter { name: "mid_packet", kind: Kind::Flag, default: "false" },
        ],
        make: |values| Action::Cut {
            by: if values.word("by") == "fin" { Ending::Fin } else { Ending::Rst },
            mid_packet: values.flag("mid_packet"),
        },
    },
    known(
        "slow",
        &[METHOD, Parameter { name: "delay", kind: lasting(Duration::from_millis(1)), default: "\"3s\"" }],
        |values| Action::Slow { method: values.word("method"), delay: values.duration("delay") },
    ),
    known("no-answer", &[METHOD], |values| Action::NoAnswer { method: values.word("method") }),
    known(
        "status",
        &[
            METHOD,
            Parameter { name: "code", kind: Kind::Integer { min: 300, max: 599 }, default: "503" },
            Parameter { name: "retry_after", kind: lasting(Duration::ZERO), default: "\"0s\"" },
        ],
        |values| Action::Status {
            method: values.word("method"),
            code: u16::try_from(values.integer("code")).expect("at most 599"),
            retry_after: values.duration("retry_after"),
        },
    ),
    known("garbage", &[], |_| Action::Garbage),
    known(
        "sdp",
        &[Parameter {
            name: "kind",
            kind: Kind::Words(&["empty", "malformed", "audio-only", "unknown-codec"]),
            default: "\"empty\"",
        }],
        |values| {
            Action::Sdp(match values.word("kind") {
                "malformed" => SdpFault::Malformed,
                "audio-only" => SdpFault::AudioOnly,
                "unknown-codec" => SdpFault::UnknownCodec,
                _ => SdpFault::Empty,
            })
        },
    ),
    known(
        "sessions",
        &[
            Parameter { name: "max", kind: Kind::Integer { min: 1, max: 64 }, default: "1" },
            Parameter { name: "code", kind: Kind::Integer { min: 300, max: 599 }, default: "453" },
        ],
        |values| Action::Sessions {
            max: u8::try_from(values.integer("max")).expect("at most 64"),
            code: u16::try_from(values.integer("code")).expect("at most 599"),
        },
    ),
    known(
        "session-timeout",
        &[
            Parameter { name: "timeout", kind: lasting(Duration::from_secs(1)), default: "\"10s\"" },
            Parameter { name: "kept_by", kind: Kind::Words(&["requests", "nothing"]), default: "\"requests\"" },
        ],
        |values| Action::SessionTimeout {
            timeout: values.duration("timeout"),
            kept: values.word("kept_by") == "requests",
        },
    ),
    known(
        "sender-reports",
        &[
            Parameter { name: "clock", kind: Kind::Words(&["none", "shifted", "jumping"]), default: "\"none\"" },
            Parameter { name: "seconds", kind: Kind::Integer { min: -ERA_SECONDS, max: ERA_SECONDS }, default: "3600" },
        ],
        |values| Action::Reports {
            reports: match values.word("clock") {
                "shifted" => Reports::Shifted,
                "jumping" => Reports::Jumping,
                _ => Reports::None,
            },
            seconds: values.integer("seconds"),
        },
    ),
    known("loss", &[Parameter { name: "percent", kind: PERCENT, default: "2" }], |values| Action::Loss {
        percent: values.percent(),
    }),
    known("duplicate", &[Parameter { name: "percent", kind: PERCENT, default: "2" }], |values| Action::Duplicate {
        percent: values.percent(),
    }),
    known(
        "reorder",
        &[
            Parameter { name: "percent", kind: PERCENT, default: "2" },
            Parameter { name: "by", kind: Kind::Integer { min: 1, max: 64 }, default: "3" },
        ],
        |values| Action::Reorder {
            percent: values.percent(),
            by: u8::try_from(values.integer("by")).expect("at most 64"),
        },
    ),
    known(
        "delay",
        &[
            Parameter {
                name: "delay",
                kind: Kind::Duration { min: Duration::ZERO, max: Duration::from_secs(5) },
                default: "\"50ms\"",
            },
            Parameter {
                name: "jitter",
                kind: Kind::Duration { min: Duration::ZERO, max: Duration::from_secs(5) },
                default: "\"0s\"",
            },
        ],
        |values| Action::Delay { delay: values.duration("delay"), jitter: values.duration("jitter") },
    ),
    known("marker", &[], |_| Action::Marker),
    known(
        "bandwidth",
        &[Parameter { name: "kbit", kind: Kind::Integer { min: 8, max: 10_000_000 }, default: "500" }],
        |values| Action::Bandwidth { kbit: u32::try_from(values.integer("kbit")).expect("at most 10 million") },
    ),
    known("frozen", &[], |_| Action::Picture(PictureFault::Frozen)),
    known("black", &[], |_| Action::Picture(PictureFault::Black)),
    known("green", &[], |_| Action::Picture(PictureFault::Green)),
];

#[cfg(test)]
mod tests {
    use toml::de::DeValue;

    use super::*;

    #[test]
    fn every_action_is_made_of_its_defaults() {
        for known in ACTIONS {
            let value = |parameter: &Parameter| {
                let default = DeValue::parse(parameter.default).unwrap();
                parameter.kind.parse(parameter.name, default.get_ref()).unwrap_or_else(|refusal| panic!("{refusal:?}"))
            };
            let values = known.parameters.iter().map(|parameter| (parameter.name, value(parameter))).collect();
            (known.make)(&Values(values));
        }
    }
}
