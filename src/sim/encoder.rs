//! How a stream of the simulated camera is compressed: the codec, what may be asked of it, and its elements.

use super::SimError;
use super::config::Size;

/// Most B-frames between two others.
const MOST_B_FRAMES: u32 = 4;
/// Most slices in a picture.
const MOST_SLICES: u32 = 8;
/// The cheapest search that x265 has: a 1920x1080 frame takes 30 ms of a core instead of 50 ms.
const X265_OPTIONS: &str = "pools=2:frame-threads=1:rd=1:max-merge=1:aq-mode=0:psy-rd=0:deblock=0:weightp=0:\
    signhide=0:ctu=32:min-cu-size=32";

/// What the stream is compressed with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Codec {
    /// H.264 by x264; even sizes.
    #[default]
    H264,
    /// H.265 by x265; even sizes.
    H265,
    /// JPEG pictures over RTP (RFC 2435); any size.
    Mjpeg,
    /// VP8 by libvpx; any size.
    Vp8,
    /// VP9 by libvpx; any size.
    Vp9,
    /// MPEG-4 part 2 by libavcodec; any size.
    Mpeg4,
    /// A codec that camring does not take: it must refuse this stream and say so.
    Theora,
}

impl Codec {
    /// The word for it on the command line and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
            Self::Mjpeg => "mjpeg",
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::Mpeg4 => "mpeg4",
            Self::Theora => "theora",
        }
    }

    /// The elements that a stream needs, each with the Debian package it comes in.
    pub(super) fn elements(self) -> [(&'static str, &'static str); 4] {
        let (base, good, bad) = ("gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good", "gstreamer1.0-plugins-bad");
        let (encoder, payloader) = match self {
            Self::H264 => (("x264enc", "gstreamer1.0-plugins-ugly"), "rtph264pay"),
            Self::H265 => (("x265enc", bad), "rtph265pay"),
            Self::Mjpeg => (("jpegenc", good), "rtpjpegpay"),
            Self::Vp8 => (("vp8enc", good), "rtpvp8pay"),
            Self::Vp9 => (("vp9enc", good), "rtpvp9pay"),
            Self::Mpeg4 => (("avenc_mpeg4", "gstreamer1.0-libav"), "rtpmp4vpay"),
            Self::Theora => (("theoraenc", base), "rtptheorapay"),
        };
        [("appsrc", base), ("videoconvert", base), encoder, (payloader, good)]
    }
}

/// What of H.264 a stream uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Profile {
    /// Variable-length coding.
    Baseline,
    /// Arithmetic coding.
    Main,
    /// Arithmetic coding and 8x8 transforms.
    High,
}

/// How a picture is scanned.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Scan {
    /// Row after row.
    #[default]
    Progressive,
    /// Two fields, the top one first, woven into each frame.
    Interlaced,
}

/// How many colour samples a picture has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Chroma {
    /// Halved both ways.
    #[default]
    #[value(name = "420")]
    C420,
    /// Halved across.
    #[value(name = "422")]
    C422,
    /// One a pixel.
    #[value(name = "444")]
    C444,
}

/// Bits of a sample.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Depth {
    /// 0 to 255.
    #[default]
    #[value(name = "8")]
    D8,
    /// 0 to 1023.
    #[value(name = "10")]
    D10,
}

/// Which packets of a picture carry RTP's marker bit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Markers {
    /// The last one, as the standard says.
    #[default]
    PerPicture,
    /// The last one of every slice, as some cameras and proxies do.
    PerSlice,
}

/// Whether an encoder begins anew with other parameter sets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Parameters {
    Stay,
    Change,
}

/// Name of the element that lets one profile of H.264 through at a time, where it is to change.
pub(super) const PROFILE: &str = "profile";

/// Two parameter sets of one size, of which a decoder must know the right one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ParameterSets {
    First,
    Second,
}

impl ParameterSets {
    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// Caps of H.264 whose entropy coding and transforms they describe.
    pub(super) fn profile(self) -> &'static str {
        match self {
            Self::First => "video/x-h264,profile=constrained-baseline",
            Self::Second => "video/x-h264,profile=high",
        }
    }

    /// Frames per second more than the camera sends that they state, which makes the encoder begin anew.
    pub(super) fn frames_more(self) -> u32 {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

/// What is asked of an encoder beyond the codec. Default: progressive, 8 bits, 4:2:0, no B-frames.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Encoding {
    /// H.264 only; `None` = whatever is cheapest.
    pub profile: Option<Profile>,
    /// B-frames between two others, at most 4; H.264 and H.265. Each costs the receiver a frame interval of delay.
    pub b_frames: u32,
    /// Slices in a picture, at most 8; H.264 only; `None` = as the encoder likes.
    pub slices: Option<u32>,
    /// Interlaced is for H.264 only.
    pub scan: Scan,
    /// H.264 and H.265 have all; MJPEG has 4:2:0 and 4:2:2.
    pub chroma: Chroma,
    /// 10 bits are for H.264 and H.265 only.
    pub depth: Depth,
    /// Per slice is for H.264 only.
    pub markers: Markers,
}

impl Encoding {
    /// Refuses what the codec, or the combination, cannot do.
    pub(super) fn check(&self, codec: Codec) -> Result<(), SimError> {
        let (name, h264) = (codec.name(), codec == Codec::H264);
        let mpeg = h264 || codec == Codec::H265;
        let not_plain = (self.chroma, self.depth) != (Chroma::C420, Depth::D8);
        let refusals = [
            (self.profile.is_some() && !h264, format!("{name} has no --profile here; use --codec h264")),
            (self.b_frames > 0 && !mpeg, format!("{name} has no B-frames here; use --codec h264 or h265")),
            (self.b_frames > MOST_B_FRAMES, format!("{} B-frames are too many; at most 4", self.b_frames)),
            (self.slices.is_some() && !h264, format!("{name} has no --slices here; use --codec h264")),
            (
                self.slices.is_some_and(|slices| !(1..=MOST_SLICES).contains(&slices)),
                format!("{} slices in a picture are not between 1 and 8", self.slices.unwrap_or(0)),
            ),
            (self.scan == Scan::Interlaced && !h264, format!("{name} is not interlaced here; use --codec h264")),
            (self.markers == Markers::PerSlice && !h264, format!("{name} has no slices here; use --codec h264")),
            (
                self.chroma == Chroma::C422 && !mpeg && codec != Codec::Mjpeg,
                format!("{name} has no 4:2:2 here; use --codec h264, h265 or mjpeg"),
            ),
            (self.chroma == Chroma::C444 && !mpeg, format!("{name} has no 4:4:4 here; use --codec h264 or h265")),
            (self.depth == Depth::D10 && !mpeg, format!("{name} has no 10 bits here; use --codec h264 or h265")),
            (
                self.profile.is_some() && not_plain,
                "these profiles are of 8 bits and 4:2:0; leave out --profile, or --chroma and --depth".to_owned(),
            ),
            (
                self.profile == Some(Profile::Baseline) && self.b_frames > 0,
                "profile baseline has no B-frames; use --profile main".to_owned(),
            ),
            (
                self.profile == Some(Profile::Baseline) && self.scan == Scan::Interlaced,
                "profile baseline is not interlaced; use --profile main".to_owned(),
            ),
        ];
        match refusals.into_iter().find(|(refused, _)| *refused) {
            Some((_, sentence)) => Err(SimError::Config(sentence)),
            None => Ok(()),
        }
    }

    /// Refuses an encoder that is to begin anew with other parameter sets where those say what was asked for.
    pub(super) fn check_new_parameters(&self, codec: Codec) -> Result<(), SimError> {
        let free = Self { slices: self.slices, markers: self.markers, ..Self::default() };
        match codec {
            Codec::H264 if *self != free => Err(SimError::Config(
                "an encoder that begins anew has profiles of its own; leave out --profile, --b-frames, --interlaced, \
                 --chroma and --depth, or use --codec h265"
                    .to_owned(),
            )),
            Codec::H264 | Codec::H265 => Ok(()),
            _ => Err(SimError::Config(format!("{} has no parameter sets; use --codec h264 or h265", codec.name()))),
        }
    }

    /// Refuses a size that the codec cannot have with this encoding.
    pub(super) fn check_size(&self, codec: Codec, size: Size) -> Result<(), SimError> {
        let even = size.width.is_multiple_of(2) && size.height.is_multiple_of(2);
        if matches!(codec, Codec::H264 | Codec::H265) && !even {
            let name = codec.name();
            let text = format!("{name} needs an even width and height, not {size}; use an even size or --codec mjpeg");
            return Err(SimError::Config(text));
        }
        if self.scan == Scan::Interlaced && !size.height.is_multiple_of(4) {
            let text = format!("an interlaced picture needs a height that is a multiple of 4, not {size}");
            return Err(SimError::Config(text));
        }
        Ok(())
    }

    /// `interlace-mode` of the raw pictures, and more of their caps.
    pub(super) fn interlacing(&self) -> &'static str {
        match self.scan {
            Scan::Progressive => "progressive",
            Scan::Interlaced => "interleaved",
        }
    }

    /// Pictures that the encoder holds back until it has seen later ones.
    pub(super) fn held(&self) -> u32 {
        if self.b_frames == 0 { 0 } else { 2 * self.b_frames + 4 }
    }

    /// What turns the painted pictures (8 bits, 4:2:0) into what is to be encoded; nothing when they are that already.
    fn conversion(&self) -> String {
        let format = match (self.chroma, self.depth) {
            (Chroma::C420, Depth::D8) => return String::new(),
            (Chroma::C422, Depth::D8) => "Y42B",
            (Chroma::C444, Depth::D8) => "Y444",
            (Chroma::C420, Depth::D10) => "I420_10LE",
            (Chroma::C422, Depth::D10) => "I422_10LE",
            (Chroma::C444, Depth::D10) => "Y444_10LE",
        };
        format!("videoconvert ! video/x-raw,format={format} ! ")
    }

    fn x264(&self, kbit: u32, gop: u32, parameters: Parameters) -> String {
        let delay = match self.b_frames {
            0 => "tune=zerolatency bframes=0".to_owned(),
            b_frames => format!(
                "bframes={b_frames} b-adapt=false rc-lookahead=0 sync-lookahead=0 mb-tree=false sliced-threads=true"
            ),
        };
        let slices = match self.slices {
            None => "threads=2".to_owned(),
            Some(slices) => format!("threads=1 sliced-threads=false option-string=slices={slices}"),
        };
        let profile = match self.profile {
            None if self.b_frames > 0 && (self.chroma, self.depth) == (Chroma::C420, Depth::D8) => Some(Profile::Main),
            profile => profile,
        };
        // Without the word the payloader asks for the first of them, whatever the encoder was told.
        let named = format!(" ! capsfilter name={PROFILE} caps={}", ParameterSets::First.profile());
        let (tools, profile) = match profile {
            // The profile that is let through takes away what it does not have.
            None if parameters == Parameters::Change => ("cabac=true dct8x8=true", named.as_str()),
            None => ("", self.other_profile()),
            Some(Profile::Baseline) => ("cabac=false dct8x8=false", " ! video/x-h264,profile=constrained-baseline"),
            Some(Profile::Main) => ("cabac=true dct8x8=false", " ! video/x-h264,profile=main"),
            Some(Profile::High) => ("cabac=true dct8x8=true", " ! video/x-h264,profile=high"),
        };
        let interlaced = self.scan == Scan::Interlaced;
        format!(
            "x264enc speed-preset=ultrafast {delay} {slices} {tools} interlaced={interlaced} bitrate={kbit} \
             key-int-max={gop}{profile}"
        )
    }

    /// The profile of H.264 that has what none of [`Profile`] has.
    fn other_profile(&self) -> &'static str {
        match (self.chroma, self.depth, self.scan) {
            (Chroma::C444, _, _) => " ! video/x-h264,profile=(string)high-4:4:4",
            (Chroma::C422, _, _) => " ! video/x-h264,profile=(string)high-4:2:2",
            (Chroma::C420, Depth::D10, _) => " ! video/x-h264,profile=(string)high-10",
            (Chroma::C420, Depth::D8, Scan::Interlaced) => " ! video/x-h264,profile=main",
            (Chroma::C420, Depth::D8, Scan::Progressive) => "",
        }
    }

    fn x265(&self, kbit: u32, gop: u32) -> String {
        let (tune, b_frames) = match self.b_frames {
            0 => ("tune=zerolatency", String::new()),
            // Its look-ahead must be longer than a row of B-frames.
            b_frames => ("", format!(":bframes={b_frames}:b-adapt=0:b-pyramid=0:rc-lookahead={}", b_frames + 1)),
        };
        format!(
            "x265enc {tune} speed-preset=ultrafast bitrate={kbit} key-int-max={gop} \
             option-string={X265_OPTIONS}{b_frames}"
        )
    }

    /// Converter, encoder and payloader (`pay0`) of a stream; `gop` counts frames from key frame to key frame.
    pub(super) fn launch_line(&self, codec: Codec, kbit: u32, gop: u32, parameters: Parameters) -> String {
        let bits = u64::from(kbit) * 1000;
        let vpx = format!("deadline=1 lag-in-frames=0 target-bitrate={bits} keyframe-max-dist={gop}");
        let encoder = match codec {
            Codec::H264 => {
                let encoder = self.x264(kbit, gop, parameters);
                // The encoder puts the parameter sets in front of each key frame; told to do it (config-interval), the
                // payloader puts them in front of each slice, as if it began a picture. Slices that share a packet
                // would share its marker.
                let aggregate = match self.markers {
                    Markers::PerPicture => "zero-latency",
                    Markers::PerSlice => "none",
                };
                format!("{encoder} ! rtph264pay name=pay0 pt=96 aggregate-mode={aggregate}")
            }
            Codec::H265 => {
                let encoder = self.x265(kbit, gop);
                format!("{encoder} ! rtph265pay name=pay0 pt=96 config-interval=-1 aggregate-mode=zero-latency")
            }
            Codec::Mjpeg => "jpegenc quality=80 ! rtpjpegpay name=pay0 pt=26".to_owned(),
            // A positive number makes it fill the time that a frame has, and its threads wait for each other.
            Codec::Vp8 => format!("vp8enc {vpx} end-usage=cbr cpu-used=-12 threads=1 ! rtpvp8pay name=pay0 pt=96"),
            // At a constant rate libvpx 1.12 leaves a block at the lower edge as it was in some pictures: the stamp there is stale.
            Codec::Vp9 => {
                format!("vp9enc {vpx} end-usage=vbr cpu-used=8 threads=2 row-mt=true ! rtpvp9pay name=pay0 pt=96")
            }
            // The payloader describes the stream only when it is told its configuration before the first picture.
            Codec::Mpeg4 => format!(
                "avenc_mpeg4 name=encoder bitrate={bits} gop-size={gop} max-bframes=0 ! mpeg4videoparse \
                 ! rtpmp4vpay name=pay0 pt=96 config-interval=1"
            ),
            Codec::Theora => format!(
                "theoraenc speed-level=3 bitrate={kbit} keyframe-auto=false keyframe-freq={gop} \
                 ! rtptheorapay name=pay0 pt=96 config-interval=1"
            ),
        };
        self.conversion() + &encoder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_combination_cannot_do_is_refused_with_a_sentence() {
        let plain = Encoding::default();
        let cases = [
            (Codec::H265, Encoding { profile: Some(Profile::High), ..plain }, "h265 has no --profile here"),
            (Codec::Vp8, Encoding { b_frames: 1, ..plain }, "vp8 has no B-frames here; use --codec h264 or h265"),
            (Codec::H264, Encoding { b_frames: 5, ..plain }, "5 B-frames are too many; at most 4"),
            (Codec::Mjpeg, Encoding { slices: Some(2), ..plain }, "mjpeg has no --slices here"),
            (Codec::H264, Encoding { slices: Some(0), ..plain }, "0 slices in a picture are not between 1 and 8"),
            (Codec::H265, Encoding { scan: Scan::Interlaced, ..plain }, "h265 is not interlaced here"),
            (Codec::Vp9, Encoding { markers: Markers::PerSlice, ..plain }, "vp9 has no slices here"),
            (Codec::Mpeg4, Encoding { chroma: Chroma::C422, ..plain }, "mpeg4 has no 4:2:2 here"),
            (Codec::Mjpeg, Encoding { chroma: Chroma::C444, ..plain }, "mjpeg has no 4:4:4 here"),
            (Codec::Vp9, Encoding { depth: Depth::D10, ..plain }, "vp9 has no 10 bits here"),
            (
                Codec::H264,
                Encoding { profile: Some(Profile::High), depth: Depth::D10, ..plain },
                "these profiles are of 8 bits and 4:2:0",
            ),
            (
                Codec::H264,
                Encoding { profile: Some(Profile::Baseline), b_frames: 1, ..plain },
                "profile baseline has no B-frames; use --profile main",
            ),
            (
                Codec::H264,
                Encoding { profile: Some(Profile::Baseline), scan: Scan::Interlaced, ..plain },
                "profile baseline is not interlaced; use --profile main",
            ),
        ];
        for (codec, encoding, sentence) in cases {
            let error = encoding.check(codec).expect_err(sentence).to_string();
            assert!(error.starts_with(sentence), "{error}");
        }
        Encoding { chroma: Chroma::C422, ..plain }.check(Codec::Mjpeg).expect("cameras do this");
        let interlaced = Encoding { scan: Scan::Interlaced, ..plain };
        let error = interlaced.check_size(Codec::H264, Size::new(640, 362)).expect_err("fields of 181 rows");
        assert_eq!(error.to_string(), "an interlaced picture needs a height that is a multiple of 4, not 640x362");
    }
}
