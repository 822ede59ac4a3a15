//! Which decoder decodes which codec: our own table, never GStreamer's ranks.

use gst::prelude::*;

use super::arrival::PictureStart;
use super::support::CodecSupport;

/// Which decoders may be used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Device {
    /// The first one that opens its device, hardware before software; software for good after two errors in 60 s.
    #[default]
    Auto,
    /// On the CPU.
    Software,
    /// Intel and AMD GPUs.
    Vaapi,
    /// NVIDIA GPUs and Jetson.
    Nvidia,
    /// Raspberry Pi, Rockchip, i.MX and others.
    V4l2,
    /// Exactly this GStreamer element.
    Element(String),
}

/// How one codec travels and who can decode it.
#[derive(Debug)]
pub(super) struct Codec {
    /// `encoding-name` in the session description.
    pub encoding: &'static str,
    /// The word users see.
    pub word: &'static str,
    pub depay: &'static str,
    pub parse: Option<&'static str>,
    /// Media type of the access units that parse mode makes the parser put together itself.
    pub units: Option<&'static str>,
    /// How its first packet of a picture is known.
    pub start: PictureStart,
    /// Whether pictures of unknown range are full range.
    pub full_range: bool,
    software: &'static [&'static str],
    vaapi: &'static [&'static str],
    nvidia: &'static [&'static str],
    v4l2: &'static [&'static str],
}

const CODECS: &[Codec] = &[
    Codec {
        encoding: "H264",
        word: "h264",
        depay: "rtph264depay",
        parse: Some("h264parse"),
        units: Some("video/x-h264"),
        start: PictureStart::H264,
        full_range: false,
        software: &["avdec_h264", "openh264dec"],
        vaapi: &["vah264dec"],
        nvidia: &["nvh264dec", "nvv4l2decoder"],
        v4l2: &["v4l2h264dec", "v4l2slh264dec", "mppvideodec"],
    },
    Codec {
        encoding: "H265",
        word: "h265",
        depay: "rtph265depay",
        parse: Some("h265parse"),
        units: Some("video/x-h265"),
        start: PictureStart::H265,
        full_range: false,
        software: &["avdec_h265", "libde265dec"],
        vaapi: &["vah265dec"],
        nvidia: &["nvh265dec", "nvv4l2decoder"],
        v4l2: &["v4l2h265dec", "v4l2slh265dec", "mppvideodec"],
    },
    Codec {
        encoding: "JPEG",
        word: "mjpeg",
        depay: "rtpjpegdepay",
        parse: None,
        units: None,
        start: PictureStart::Any,
        full_range: true,
        software: &["jpegdec", "avdec_mjpeg"],
        vaapi: &["vajpegdec"],
        nvidia: &["nvjpegdec"],
        v4l2: &["v4l2jpegdec"],
    },
    Codec {
        encoding: "VP8",
        word: "vp8",
        depay: "rtpvp8depay",
        parse: None,
        units: None,
        start: PictureStart::Any,
        full_range: false,
        software: &["vp8dec", "avdec_vp8"],
        vaapi: &["vavp8dec"],
        nvidia: &["nvvp8dec"],
        v4l2: &["v4l2vp8dec", "v4l2slvp8dec"],
    },
    Codec {
        encoding: "VP9",
        word: "vp9",
        depay: "rtpvp9depay",
        parse: Some("vp9parse"),
        units: None,
        start: PictureStart::Any,
        full_range: false,
        software: &["vp9dec", "avdec_vp9"],
        vaapi: &["vavp9dec"],
        nvidia: &["nvvp9dec"],
        v4l2: &["v4l2vp9dec", "v4l2slvp9dec"],
    },
    Codec {
        encoding: "MP4V-ES",
        word: "mpeg4",
        depay: "rtpmp4vdepay",
        parse: Some("mpeg4videoparse"),
        units: None,
        start: PictureStart::Any,
        full_range: false,
        software: &["avdec_mpeg4"],
        vaapi: &[],
        nvidia: &["nvmpeg4videodec"],
        v4l2: &["v4l2mpeg4dec"],
    },
];

/// Decoders whose pictures must be fetched from device memory by another element.
const DOWNLOADS: &[(&str, &str)] = &[("nvv4l2decoder", "nvvidconv")];

/// A decoder that opened its device.
#[derive(Debug)]
pub(super) struct Chosen {
    pub element: gst::Element,
    pub name: String,
    /// Copies its pictures to system memory.
    pub download: Option<gst::Element>,
    /// Whether `auto` may fall back from it to software.
    pub hardware: bool,
}

impl Codec {
    /// The codec behind an `encoding-name`; `None` when there is no entry for it.
    pub(super) fn of_encoding(name: &str) -> Option<&'static Self> {
        CODECS.iter().find(|codec| codec.encoding.eq_ignore_ascii_case(name))
    }

    /// The words of all codecs, for messages.
    pub(super) fn words() -> String {
        CODECS.iter().map(|codec| codec.word).collect::<Vec<_>>().join(", ")
    }

    fn candidates<'a>(&self, device: &'a Device) -> Vec<&'a str> {
        match device {
            Device::Auto => [self.vaapi, self.nvidia, self.v4l2, self.software].concat(),
            Device::Software => self.software.to_vec(),
            Device::Vaapi => self.vaapi.to_vec(),
            Device::Nvidia => self.nvidia.to_vec(),
            Device::V4l2 => self.v4l2.to_vec(),
            Device::Element(name) => vec![name.as_str()],
        }
    }

    /// The first decoder of `device` that exists and opens.
    ///
    /// # Errors
    ///
    /// One sentence with every decoder that was tried.
    pub(super) fn choose(&self, device: &Device) -> Result<Chosen, String> {
        let candidates = self.candidates(device);
        let found = candidates.iter().find_map(|name| open(name));
        let (element, name, download) = found.ok_or_else(|| {
            let tried = if candidates.is_empty() { "nothing".to_owned() } else { candidates.join(", ") };
            let word = self.word;
            format!("no decoder for codec {word} can be used here (tried {tried}); install its plugin (gstreamer1.0-libav and gstreamer1.0-plugins-good hold the software ones) or set decode.device")
        })?;
        let hardware = *device == Device::Auto && !self.software.contains(&name);
        Ok(Chosen { element, name: name.to_owned(), download, hardware })
    }
}

/// What opens here, codec by codec; GStreamer must be initialised.
pub(super) fn inventory() -> Vec<CodecSupport> {
    let opens = |names: &[&'static str]| -> Vec<&'static str> {
        let works = |name: &&'static str| {
            let Some((element, ..)) = open(name) else { return false };
            element.set_state(gst::State::Null).is_ok()
        };
        names.iter().copied().filter(works).collect()
    };
    let of = |codec: &Codec| {
        let needed = [Some(codec.depay), codec.parse].into_iter().flatten();
        CodecSupport {
            codec: codec.word,
            missing: needed.filter(|name| gst::ElementFactory::find(name).is_none()).collect(),
            software: opens(codec.software),
            hardware: opens(&[codec.vaapi, codec.nvidia, codec.v4l2].concat()),
        }
    };
    CODECS.iter().map(of).collect()
}

fn open<'a>(name: &&'a str) -> Option<(gst::Element, &'a str, Option<gst::Element>)> {
    let element = gst::ElementFactory::make(name).name("decoder").build().ok()?;
    let download = match DOWNLOADS.iter().find(|(decoder, _)| decoder == name) {
        Some((_, download)) => Some(gst::ElementFactory::make(download).name("download").build().ok()?),
        None => None,
    };
    // The table names decoders, but a user may name anything.
    element.static_pad("sink").and(element.static_pad("src"))?;
    // READY opens the device; a decoder that cannot must not be in the pipeline.
    if element.set_state(gst::State::Ready).is_err() {
        if let Err(error) = element.set_state(gst::State::Null) {
            tracing::debug!(decoder = name, %error, "a refused decoder does not close");
        }
        return None;
    }
    Some((element, name, download))
}

/// Most threads that `threads = 0` uses for a large picture.
const MOST_THREADS: usize = 4;

/// Sets the decoder's threads once the picture's size is known; `threads` 0 = chosen by size.
///
/// Never frame threads: each would hold back one picture.
pub(super) fn set_threads(decoder: &gst::Element, threads: u32, width: i32, height: i32) {
    if !decoder.has_property("max-threads") || !decoder.has_property("thread-type") {
        return;
    }
    let larger_than_1080p = i64::from(width) * i64::from(height) > 1920 * 1088;
    let threads = match threads {
        0 if larger_than_1080p => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_THREADS)),
        0 => 1,
        threads => threads as usize,
    };
    decoder.set_property("max-threads", i32::try_from(threads).unwrap_or(i32::MAX));
    if threads > 1 {
        decoder.set_property_from_str("thread-type", "slice");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_prefers_hardware_and_ends_with_software() {
        let codec = Codec::of_encoding("h264").expect("in the table");
        let all = codec.candidates(&Device::Auto);
        assert_eq!((all.first(), all.last()), (Some(&"vah264dec"), Some(&"openh264dec")));
        assert_eq!(codec.candidates(&Device::Software), ["avdec_h264", "openh264dec"]);
        assert_eq!(codec.candidates(&Device::Element("mydec".into())), ["mydec"]);
    }

    #[test]
    fn every_codec_has_a_software_decoder_and_its_elements_here() {
        gst::init().expect("GStreamer");
        for codec in CODECS {
            let chosen = codec.choose(&Device::Software).expect(codec.word);
            assert_eq!(chosen.name, codec.software[0]);
            assert!(!chosen.hardware);
            chosen.element.set_state(gst::State::Null).expect("it closes");
            for name in [Some(codec.depay), codec.parse].into_iter().flatten() {
                assert!(gst::ElementFactory::find(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn a_missing_decoder_is_named() {
        gst::init().expect("GStreamer");
        let codec = Codec::of_encoding("JPEG").expect("in the table");
        let error = codec.choose(&Device::Element("nosuchdec".into())).expect_err("there is none");
        assert!(error.starts_with("no decoder for codec mjpeg can be used here (tried nosuchdec); install"), "{error}");
    }

    #[test]
    fn large_pictures_get_slice_threads_and_others_one_thread() {
        gst::init().expect("GStreamer");
        let decoder = gst::ElementFactory::make("avdec_h264").build().expect("libav");
        let threads = |threads, width, height| {
            set_threads(&decoder, threads, width, height);
            decoder.property::<i32>("max-threads")
        };
        assert_eq!((threads(0, 1920, 1080), threads(3, 640, 360)), (1, 3));
        let cores = std::thread::available_parallelism().expect("cores").get().min(MOST_THREADS) as i32;
        assert_eq!(threads(0, 3840, 2160), cores);
    }
}
