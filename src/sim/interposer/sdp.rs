//! Session descriptions that are wrong.

use super::super::script::SdpFault;

/// The name of a codec that does not exist.
const UNKNOWN_CODEC: &str = "X-UNKNOWN";

/// What becomes of a right description.
pub fn spoil(description: &[u8], fault: SdpFault) -> Vec<u8> {
    let text = String::from_utf8_lossy(description);
    match fault {
        SdpFault::Empty => Vec::new(),
        SdpFault::Malformed => b"v=zero\r\nthis line is none\r\nm=video\r\n=\r\n\xff\xfe\r\n".to_vec(),
        SdpFault::AudioOnly => {
            let session: String = lines(&text).take_while(|line| !line.starts_with("m=")).collect();
            let audio = "m=audio 0 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=control:stream=0\r\n";
            format!("{session}{audio}").into_bytes()
        }
        SdpFault::UnknownCodec => lines(&text).map(without_codec).collect::<String>().into_bytes(),
    }
}

/// The lines with their ends.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
}

/// `a=rtpmap:96 H264/90000` with another name.
fn without_codec(line: &str) -> String {
    let renamed = line.strip_prefix("a=rtpmap:").and_then(|rest| {
        let (payload, encoding) = rest.split_once(' ')?;
        let (_, clock) = encoding.split_once('/')?;
        Some(format!("a=rtpmap:{payload} {UNKNOWN_CODEC}/{clock}"))
    });
    renamed.unwrap_or_else(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "v=0\r\ns=x\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:stream=0\r\n";

    #[test]
    fn a_description_is_spoilt_in_the_way_that_is_asked_for() {
        let spoilt = |fault| String::from_utf8_lossy(&spoil(RIGHT.as_bytes(), fault)).into_owned();
        assert_eq!(spoilt(SdpFault::Empty), "");
        assert!(!spoilt(SdpFault::Malformed).starts_with("v=0"));
        let audio = spoilt(SdpFault::AudioOnly);
        assert!(audio.starts_with("v=0\r\ns=x\r\nm=audio") && !audio.contains("video"), "{audio}");
        assert_eq!(spoilt(SdpFault::UnknownCodec), RIGHT.replace("H264", "X-UNKNOWN"));
    }
}
