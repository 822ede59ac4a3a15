//! The settings that are words: each value has one spelling in the file and one meaning in the program.

use std::fmt;

/// A setting whose values are words.
pub trait Word: Copy + 'static {
    /// Every spelling, in the order in which documentation names them.
    const WORDS: &'static [&'static str];

    /// The value that a word stands for.
    fn from_word(word: &str) -> Option<Self>;

    /// The spelling of this value.
    fn word(self) -> &'static str;
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
        }

        impl Word for $name {
            const WORDS: &'static [&'static str] = &[$($word),+];

            fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }

            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words! {
    /// How the camera sends its packets.
    Transport {
        /// Interleaved in the RTSP connection.
        Tcp "tcp",
        /// Datagrams to a pair of local ports.
        Udp "udp",
        /// Datagrams to a group address.
        Multicast "multicast",
        /// RTSP tunnelled through HTTP.
        Http "http",
        /// UDP first, TCP when nothing arrives.
        Auto "auto",
    }
}

words! {
    /// What happens to pictures that a loss has damaged.
    OnCorrupt {
        /// They are withheld until the next keyframe.
        Drop "drop",
        /// They are delivered with the flag CORRUPT or TAINTED.
        Flag "flag",
    }
}

words! {
    /// How the end of a picture is found in the packets.
    AccessUnits {
        /// By the RTP marker, until the camera turns out to set it on every slice.
        Auto "auto",
        /// By the RTP marker.
        Marker "marker",
        /// By the bitstream parser; costs one frame of delay.
        Parse "parse",
    }
}

words! {
    /// What happens to interlaced pictures.
    Deinterlace {
        /// Both fields are delivered woven.
        Off "off",
        /// Lines are interpolated.
        Linear "linear",
        /// Motion adaptive.
        Yadif "yadif",
    }
}

words! {
    /// What a camera does while nobody reads.
    Idle {
        /// It goes on as usual.
        Full "full",
        /// It decodes keyframes only.
        Keyframes "keyframes",
        /// It stays connected and decodes nothing.
        Park "park",
    }
}

words! {
    /// What the writer does when readers lease every slot that it could take.
    LeasePolicy {
        /// The camera wins: the lease is revoked when its slot is needed.
        Fresh "fresh",
        /// The reader wins: the frame is dropped.
        Protect "protect",
        /// No leases are offered.
        Off "off",
    }
}

words! {
    /// How a picture is made to fit the size of an output.
    Fit {
        /// Scaled with its aspect kept, and padded.
        Letterbox "letterbox",
        /// Scaled to the size, whatever becomes of its aspect.
        Stretch "stretch",
        /// Scaled with its aspect kept, and cut.
        Crop "crop",
    }
}

words! {
    /// Whether the ring asks for huge pages.
    HugePages {
        /// It does not.
        Never "never",
        /// It does, and works without.
        Try "try",
    }
}

words! {
    /// What a test source draws.
    TestPattern {
        /// The time of day and a frame counter.
        Clock "clock",
        /// A ball that moves.
        Ball "ball",
        /// Colour bars.
        Smpte "smpte",
        /// Noise: the hardest picture to compress.
        Snow "snow",
        /// Nothing.
        Black "black",
    }
}

words! {
    /// The least important line that is logged.
    LogLevel {
        /// A human must act.
        Error "error",
        /// We recovered or will.
        Warn "warn",
        /// A state changed.
        Info "info",
        /// For us.
        Debug "debug",
        /// Everything.
        Trace "trace",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// The journal when systemd reads stderr, else text.
        Auto "auto",
        /// One JSON object per line.
        Json "json",
        /// Lines for people.
        Text "text",
    }
}

/// A setting that is on or off.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Switch {
    /// `false` in the file.
    Off,
    /// `true` in the file.
    On,
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

/// A setting that is chosen by the program unless the file says it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AutoOr<T> {
    /// `"auto"` in the file.
    Auto,
    /// What the file says.
    Fixed(T),
}

impl<T> AutoOr<T> {
    /// The file's value; `None` for `"auto"`.
    #[must_use]
    pub fn fixed(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Fixed(value) => Some(value),
        }
    }
}
