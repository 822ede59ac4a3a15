//! What a simulated camera is asked to be: streams, sizes, rates, log-in; checked before anything starts.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::SimError;
use super::encoder::{Codec, Encoding};
use super::jpeg;
use super::picture::{Color, Pattern};
use super::stamp;

/// Widest and highest picture, pixels.
const LARGEST_SIDE: u32 = 8192;

/// Most changes in a session.
const MOST_SWITCHES: usize = 100;

/// Width and height of a picture, pixels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// A size; whether a codec can carry it is checked when the camera starts.
    #[must_use]
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// The colour description that this camera states for pictures of this size.
    ///
    /// MJPEG: full-range BT.601, because JFIF knows nothing else and the encoder takes the numbers as they are.
    /// Otherwise BT.601 up to 576 rows and BT.709 above, limited range.
    #[must_use]
    pub fn color(self, codec: Codec) -> Color {
        match (codec, self.height) {
            (Codec::Mjpeg, _) => Color::Jpeg,
            (Codec::Theora, _) | (_, ..=576) => Color::Bt601,
            _ => Color::Bt709,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (width, height) = text.split_once('x').ok_or("expected WIDTHxHEIGHT, such as 1920x1080")?;
        let number = |text: &str| text.parse().map_err(|error| format!("{text:?} is not a number of pixels: {error}"));
        Ok(Self { width: number(width)?, height: number(height)? })
    }
}

/// Frames per second, exact.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameRate {
    /// Frames ...
    pub frames: u32,
    /// ... in so many seconds.
    pub seconds: u32,
}

impl FrameRate {
    /// A whole number of frames per second.
    #[must_use]
    pub const fn per_second(frames: u32) -> Self {
        Self { frames, seconds: 1 }
    }

    /// Nanoseconds from the first frame to frame `number`.
    #[must_use]
    pub(super) fn offset_ns(self, number: u64) -> u64 {
        let nanos = u128::from(number) * u128::from(self.seconds) * 1_000_000_000 / u128::from(self.frames);
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// The newest frame that is due `nanos` after the first.
    pub(super) fn number_at(self, nanos: u64) -> u64 {
        let number = u128::from(nanos) * u128::from(self.frames) / (u128::from(self.seconds) * 1_000_000_000);
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        // The next one may be due in this very nanosecond: its offset was rounded down.
        if self.offset_ns(number + 1) <= nanos { number + 1 } else { number }
    }

    /// Frames in `duration`, rounded, at least 1.
    pub(super) fn frames_in(self, duration: Duration) -> u32 {
        let scale = u128::from(self.seconds) * 1_000_000_000;
        let frames = (duration.as_nanos().saturating_mul(u128::from(self.frames)) + scale / 2) / scale;
        u32::try_from(frames).unwrap_or(u32::MAX).max(1)
    }
}

impl fmt::Display for FrameRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            1 => write!(f, "{}", self.frames),
            seconds => write!(f, "{}/{seconds}", self.frames),
        }
    }
}

impl FromStr for FrameRate {
    type Err = String;

    /// Takes `25`, `30000/1001`, `12.5`; 29.97 and its relatives mean the NTSC fractions.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u32>().ok().filter(|&number| number > 0);
        let rate = match (text.split_once('/'), text.split_once('.')) {
            (Some((frames, seconds)), _) => number(frames).zip(number(seconds)),
            (None, Some(_)) => from_decimal(text),
            (None, None) => number(text).map(|frames| (frames, 1)),
        };
        let (frames, seconds) = rate.ok_or_else(|| {
            format!("{text:?} is not a frame rate; expected something like 25, 12.5, 29.97 or 30000/1001")
        })?;
        Ok(Self { frames, seconds })
    }
}

fn from_decimal(text: &str) -> Option<(u32, u32)> {
    match text {
        "23.976" | "23.98" => return Some((24_000, 1001)),
        "29.97" => return Some((30_000, 1001)),
        "59.94" => return Some((60_000, 1001)),
        _ => {}
    }
    let (whole, fraction) = text.split_once('.')?;
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=3).contains(digits))?;
    let only_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !only_digits(whole) || !only_digits(fraction) {
        return None;
    }
    let scale = 10_u32.pow(digits);
    let frames = whole.parse::<u32>().ok()?.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?;
    (frames > 0).then_some((frames, scale))
}

/// A change in the middle of every session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Switch {
    /// What changes.
    pub to: SwitchTo,
    /// How long after the first picture of the session.
    pub after: Duration,
}

/// What a camera changes while clients watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SwitchTo {
    /// Pictures have this size from then on.
    Size(Size),
    /// The encoder begins anew, at the same size, with other parameter sets than before: each time the other of two.
    /// H.264 goes from profile constrained-baseline to high and back, H.265 states another frame rate.
    Encoder,
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (after, to) =
            text.split_once(':').ok_or("expected DURATION:SIZE or DURATION:encoder, such as 4s:1280x720")?;
        let after =
            humantime::parse_duration(after).map_err(|error| format!("{after:?} is not a duration: {error}"))?;
        let to = if to == "encoder" { SwitchTo::Encoder } else { SwitchTo::Size(to.parse()?) };
        Ok(Self { to, after })
    }
}

/// A picture that stands still in the middle of every session: the same bits, stamp included, at the usual rate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Freeze {
    /// How long after the first picture of the session.
    pub after: Duration,
    /// How long it lasts; `None` = to the end.
    pub lasting: Option<Duration>,
}

impl Freeze {
    /// Whether the picture stands still `since` the first one of the session.
    pub(super) fn covers(&self, since: Duration) -> bool {
        since >= self.after && self.lasting.is_none_or(|lasting| since - self.after < lasting)
    }
}

/// One stream of the camera.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// Path in the URL, beginning with `/`. Default `/stream`.
    pub mount: String,
    /// Default H.264.
    pub codec: Codec,
    /// Default 1920x1080.
    pub size: Size,
    /// Default 25 per second.
    pub rate: FrameRate,
    /// What is asked of the encoder; default: the plainest.
    pub encoding: Encoding,
    /// From one key frame to the next; default 1 s. MJPEG has only key frames.
    pub gop: Duration,
    /// Default: the scene.
    pub pattern: Pattern,
    /// What makes this scene differ from that of another seed. Default 1.
    pub seed: u64,
    /// Bits per second; `None` = a tenth of a bit per pixel (H.265: a fifteenth), as cameras do. Not for MJPEG.
    pub bitrate: Option<u32>,
    /// What changes in the middle of every session, one after the other. Default: nothing. No sizes for Theora, MPEG-4
    /// and, except between multiples of 8 up to 2040, MJPEG: theirs are fixed by the session description.
    pub switches: Vec<Switch>,
    /// Default: the picture never stands still.
    pub freeze: Option<Freeze>,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            mount: "/stream".to_owned(),
            codec: Codec::H264,
            size: Size::new(1920, 1080),
            rate: FrameRate::per_second(25),
            encoding: Encoding::default(),
            gop: Duration::from_secs(1),
            pattern: Pattern::Scene,
            seed: 1,
            bitrate: None,
            switches: Vec::new(),
            freeze: None,
        }
    }
}

impl StreamConfig {
    /// The sizes of the stream, in their order.
    fn sizes(&self) -> impl Iterator<Item = Size> {
        let later = self.switches.iter().filter_map(|switch| match switch.to {
            SwitchTo::Size(size) => Some(size),
            SwitchTo::Encoder => None,
        });
        std::iter::once(self.size).chain(later)
    }

    /// Whether the encoder is to begin anew with other parameter sets.
    pub(super) fn has_new_parameters(&self) -> bool {
        self.switches.iter().any(|switch| switch.to == SwitchTo::Encoder)
    }

    /// Bits per second that the encoder is asked for at the largest of the stream's sizes.
    #[must_use]
    pub fn bits_per_second(&self) -> u32 {
        let pixels = self.sizes().map(|size| u64::from(size.width) * u64::from(size.height)).max();
        let per_second = pixels.unwrap_or(0) * u64::from(self.rate.frames) / u64::from(self.rate.seconds);
        let pixels_per_bit = if self.codec == Codec::H265 { 15 } else { 10 };
        let usual = u32::try_from(per_second / pixels_per_bit).unwrap_or(u32::MAX).clamp(256_000, 40_000_000);
        self.bitrate.unwrap_or(usual)
    }

    fn check(&self) -> Result<(), SimError> {
        let wrong = |what: String| Err(SimError::Config(what));
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%' | b'"');
        let path = self.mount.strip_prefix('/').filter(|path| !path.is_empty() && !path.ends_with('/'));
        if !path.is_some_and(|path| path.bytes().all(plain)) {
            return wrong(format!("mount {:?} is not a plain path; expected something like /stream", self.mount));
        }
        if !(1..=240).contains(&(self.rate.frames / self.rate.seconds.max(1))) || self.rate.seconds == 0 {
            return wrong(format!("a frame rate of {} is not between 1 and 240 per second", self.rate));
        }
        if self.bitrate.is_some() && self.codec == Codec::Mjpeg {
            return wrong("MJPEG has a fixed quality; leave the bit rate out, or choose another codec".to_owned());
        }
        if self.bitrate.is_some_and(|bitrate| !(64_000..=200_000_000).contains(&bitrate)) {
            return wrong(format!("a bit rate of {} is not between 64k and 200M", self.bits_per_second()));
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(600)).contains(&self.gop) {
            return wrong(format!("{:?} from key frame to key frame is not between 1 ms and 10 min", self.gop));
        }
        self.encoding.check(self.codec)?;
        self.check_switches()?;
        self.sizes().try_for_each(|size| self.check_size(size))
    }

    fn check_switches(&self) -> Result<(), SimError> {
        let wrong = |what: String| Err(SimError::Config(what));
        let name = self.codec.name();
        if self.switches.len() > MOST_SWITCHES {
            return wrong(format!(
                "{} changes in a session are too many; at most {MOST_SWITCHES}",
                self.switches.len()
            ));
        }
        if let Some(pair) = self.switches.windows(2).find(|pair| pair[0].after >= pair[1].after) {
            let [first, second] = [pair[0].after, pair[1].after].map(humantime::format_duration);
            return wrong(format!(
                "a change after {second} cannot follow one after {first}; write them in their order"
            ));
        }
        if self.has_new_parameters() {
            self.encoding.check_new_parameters(self.codec)?;
        }
        let mut sizes = self.sizes().zip(self.sizes().skip(1));
        match self.codec {
            Codec::Theora | Codec::Mpeg4 if sizes.next().is_some() => {
                wrong(format!("{name} cannot change its size in a session; choose another codec"))
            }
            Codec::Mjpeg => match sizes.find(|(from, to)| !jpeg::fits_header(*from) || !jpeg::fits_header(*to)) {
                None => Ok(()),
                Some((from, to)) => wrong(format!(
                    "MJPEG cannot change from {from} to {to} in a session; use multiples of 8 up to 2040"
                )),
            },
            _ => Ok(()),
        }
    }

    fn check_size(&self, size: Size) -> Result<(), SimError> {
        let wrong = |what: String| Err(SimError::Config(what));
        if let Err(error) = stamp::cell_side(size.width, size.height) {
            return wrong(error.to_string());
        }
        if size.width.max(size.height) > LARGEST_SIDE {
            return wrong(format!("{size} is too large; the limit is {LARGEST_SIDE}x{LARGEST_SIDE}"));
        }
        self.encoding.check_size(self.codec, size)
    }
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum AuthScheme {
    /// User and password in clear (base64).
    Basic,
    /// A hash of them (MD5, RFC 2617), as most cameras do.
    Digest,
}

/// Who may watch.
#[derive(Clone, Debug)]
pub struct Login {
    /// How the password is asked for.
    pub scheme: AuthScheme,
    /// The only user.
    pub user: String,
    /// The user's password; any characters but control characters.
    pub password: SecretString,
}

impl Login {
    fn check(&self) -> Result<(), SimError> {
        let wrong = |what: &str| Err(SimError::Config(what.to_owned()));
        let password = self.password.expose_secret();
        if self.user.is_empty() || self.user.chars().any(|letter| letter.is_control() || matches!(letter, ':' | '"')) {
            return wrong("the user name must not be empty nor contain a colon, a quote or a control character");
        }
        if password.is_empty() || password.chars().any(char::is_control) {
            return wrong("the password must not be empty nor contain a control character");
        }
        Ok(())
    }
}

/// A whole simulated camera.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Address and port to listen on; port 0 = any free one. Default 127.0.0.1:0.
    pub listen: SocketAddr,
    /// The streams, each on its own mount; at least one. Default: one stream of [`StreamConfig::default`].
    pub streams: Vec<StreamConfig>,
    /// `None` (default) = everybody may watch.
    pub login: Option<Login>,
    /// What the camera proves itself with, its private key included; then it speaks TLS only (`rtsps://`). `None`
    /// (default) = no TLS.
    pub certificate: Option<gio::TlsCertificate>,
    /// Offer multicast at this group; each stream takes the next two ports. `None` (default) = not offered.
    pub multicast: Option<SocketAddrV4>,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self::with_stream(StreamConfig::default())
    }
}

impl SimConfig {
    /// A camera with one stream, on any free port of 127.0.0.1, open to everybody.
    #[must_use]
    pub fn with_stream(stream: StreamConfig) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            streams: vec![stream],
            login: None,
            certificate: None,
            multicast: None,
        }
    }

    /// Checks everything that can be checked without GStreamer.
    ///
    /// # Errors
    ///
    /// [`SimError::Config`] with the first thing that is wrong and what would be right.
    pub fn check(&self) -> Result<(), SimError> {
        let wrong = |what: String| Err(SimError::Config(what));
        if self.streams.is_empty() {
            return wrong("a camera needs at least one stream".to_owned());
        }
        for (index, stream) in self.streams.iter().enumerate() {
            stream.check()?;
            // A client's control URL is MOUNT/stream=0, so a mount inside of another would take its requests.
            let clash = self.streams[..index].iter().find(|other| nested(&other.mount, &stream.mount));
            if let Some(other) = clash {
                return wrong(format!("mounts {} and {} overlap; give each its own path", other.mount, stream.mount));
            }
        }
        self.multicast.map_or(Ok(()), |group| self.check_group(group))?;
        self.login.as_ref().map_or(Ok(()), Login::check)
    }

    fn check_group(&self, group: SocketAddrV4) -> Result<(), SimError> {
        let last = usize::from(group.port()) + 2 * self.streams.len() - 1;
        let fits = group.port() > 0 && group.port().is_multiple_of(2) && last <= usize::from(u16::MAX);
        if group.ip().is_multicast() && fits {
            return Ok(());
        }
        let what = format!("{group} is no group with an even port; expected something like 239.255.42.1:5600");
        Err(SimError::Config(what))
    }
}

fn nested(one: &str, other: &str) -> bool {
    let inside = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    one == other || inside(one, other) || inside(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> StreamConfig {
        StreamConfig::default()
    }

    fn refusal(stream: StreamConfig) -> String {
        SimConfig::with_stream(stream).check().expect_err("this stream is impossible").to_string()
    }

    #[test]
    fn a_group_is_a_multicast_address_with_an_even_port() {
        let check = |group: &str| {
            SimConfig { multicast: Some(group.parse().expect("an address")), ..SimConfig::default() }.check()
        };
        assert!(check("239.255.42.1:5600").is_ok());
        for group in ["239.255.42.1:5601", "239.255.42.1:0", "10.0.0.1:5600"] {
            let error = check(group).expect_err(group).to_string();
            assert!(error.starts_with(&format!("{group} is no group with an even port")), "{error}");
        }
    }

    #[test]
    fn the_defaults_are_possible() {
        SimConfig::default().check().expect("the defaults pass");
        assert_eq!(StreamConfig::default().bits_per_second(), 5_184_000);
    }

    #[test]
    fn odd_sizes_are_for_mjpeg_only() {
        let size = Size::new(641, 359);
        for codec in [Codec::H264, Codec::H265] {
            let text = refusal(StreamConfig { codec, size, ..stream() });
            assert_eq!(
                text,
                format!(
                    "{} needs an even width and height, not 641x359; use an even size or --codec mjpeg",
                    codec.name()
                )
            );
        }
        SimConfig::with_stream(StreamConfig { codec: Codec::Mjpeg, size, ..stream() }).check().expect("odd MJPEG");
    }

    #[test]
    fn impossible_streams_are_refused_with_a_reason() {
        let tiny = StreamConfig { size: Size::new(100, 100), ..stream() };
        assert_eq!(refusal(tiny), "a picture of 100x100 has no room for a stamp; it needs at least 128x64");
        let wide = StreamConfig { codec: Codec::Mjpeg, size: Size::new(8193, 2160), ..stream() };
        assert_eq!(refusal(wide), "8193x2160 is too large; the limit is 8192x8192");
        assert!(
            refusal(StreamConfig { codec: Codec::Mjpeg, bitrate: Some(1_000_000), ..stream() }).contains("quality")
        );
        assert!(refusal(StreamConfig { rate: FrameRate { frames: 25, seconds: 0 }, ..stream() }).contains("25/0"));
        for mount in ["", "/", "stream", "/a/", "/a b", "/a?b", "/a\nb", "/a%62"] {
            assert!(refusal(StreamConfig { mount: mount.to_owned(), ..stream() }).contains("plain path"), "{mount:?}");
        }
    }

    fn switches(texts: &[&str]) -> Vec<Switch> {
        texts.iter().map(|text| text.parse().expect("a change")).collect()
    }

    #[test]
    fn impossible_changes_are_refused_with_a_reason() {
        let refused = |codec, texts: &[&str]| refusal(StreamConfig { codec, switches: switches(texts), ..stream() });
        assert!(refused(Codec::H264, &["1s:1280x720", "2s:1279x720"]).contains("not 1279x720"));
        let text = refused(Codec::Mjpeg, &["1s:1280x720", "2s:1276x720"]);
        assert!(
            text.starts_with("MJPEG cannot change from 1280x720 to 1276x720 in a session; use multiples of 8"),
            "{text}"
        );
        assert!(refused(Codec::Theora, &["1s:1280x720"]).contains("cannot change its size"));
        for texts in [["2s:1280x720", "2s:640x360"], ["2s:encoder", "1s:encoder"]] {
            assert!(refused(Codec::H264, &texts).contains("write them in their order"), "{texts:?}");
        }
        let many: Vec<String> = (1..=101).map(|second| format!("{second}s:encoder")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(refused(Codec::H265, &many), "101 changes in a session are too many; at most 100");
        assert_eq!(refused(Codec::Vp8, &["1s:encoder"]), "vp8 has no parameter sets; use --codec h264 or h265");
        let encoding = Encoding { b_frames: 1, ..Encoding::default() };
        let text = refusal(StreamConfig { encoding, switches: switches(&["1s:encoder"]), ..stream() });
        assert!(text.contains("leave out --profile, --b-frames"), "{text}");
    }

    #[test]
    fn changes_are_read_as_people_write_them() {
        let switch = |to, ms| Ok(Switch { to, after: Duration::from_millis(ms) });
        assert_eq!("4s:1280x720".parse(), switch(SwitchTo::Size(Size::new(1280, 720)), 4000));
        assert_eq!("1m 500ms:encoder".parse(), switch(SwitchTo::Encoder, 60_500));
        for text in ["", "4s", "4s:", "x:encoder", "4s:decoder", ":640x360", "4s:640"] {
            assert!(text.parse::<Switch>().is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_must_not_overlap() {
        let config = |mounts: [&str; 2]| SimConfig {
            streams: mounts.map(|mount| StreamConfig { mount: mount.to_owned(), ..stream() }).to_vec(),
            ..SimConfig::default()
        };
        config(["/a", "/ab"]).check().expect("two paths");
        for mounts in [["/a", "/a"], ["/a", "/a/b"], ["/a/b", "/a"]] {
            assert!(config(mounts).check().is_err(), "{mounts:?}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let login =
            Login { scheme: AuthScheme::Basic, user: "viewer".to_owned(), password: "p@ss:w/rd#%?".to_owned().into() };
        login.check().expect("any printable password");
        let config = SimConfig { login: Some(login), ..SimConfig::default() };
        assert!(!format!("{config:?}").contains("p@ss"));
    }

    #[test]
    fn sizes_and_rates_are_read_as_people_write_them() {
        assert_eq!("641x359".parse(), Ok(Size::new(641, 359)));
        assert!("641".parse::<Size>().is_err() && "axb".parse::<Size>().is_err() && "-1x5".parse::<Size>().is_err());
        let rates = [
            ("25", (25, 1)),
            ("30000/1001", (30_000, 1001)),
            ("29.97", (30_000, 1001)),
            ("12.5", (125, 10)),
            ("0.5", (5, 10)),
        ];
        for (text, (frames, seconds)) in rates {
            assert_eq!(text.parse(), Ok(FrameRate { frames, seconds }), "{text}");
        }
        for text in ["", "0", "x", "25/0", "1.2345", "-5", "0.0", "1.", ".5", "1.+5", "99999999999"] {
            assert!(text.parse::<FrameRate>().is_err(), "{text}");
        }
    }

    #[test]
    fn frame_times_neither_drift_nor_disagree_with_frame_numbers() {
        for text in ["25", "30", "29.97", "12.5", "240"] {
            let rate: FrameRate = text.parse().expect("a rate");
            for number in (0..100).chain(10_000_000..10_000_100) {
                let due = rate.offset_ns(number);
                assert_eq!(rate.number_at(due), number, "{text} frame {number}");
                assert!(number == 0 || rate.number_at(due - 1) == number - 1, "{text} before frame {number}");
            }
        }
        assert_eq!(FrameRate::per_second(25).offset_ns(25 * 3600), 3600 * 1_000_000_000);
        assert_eq!(FrameRate::per_second(25).frames_in(Duration::from_secs(1)), 25);
        assert_eq!(FrameRate::per_second(25).frames_in(Duration::from_millis(1)), 1);
    }
}
