//! RTSP on a byte stream: requests, responses and interleaved packets, one after the other.

/// Longest head of a message, bytes.
const HEAD_MAX: usize = 64 << 10;
/// Longest body of a message, bytes.
const BODY_MAX: usize = 1 << 20;
/// Bytes of room for the next read.
const READ_ROOM: usize = 64 << 10;
/// In front of an interleaved packet: `$`, channel, length.
pub const PACKET_HEAD: usize = 4;

/// One thing on the stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unit {
    /// A request or a response.
    Message(Message),
    /// An interleaved packet with the four bytes in front of it.
    Packet(Vec<u8>),
}

/// A request or a response.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// Names and values in their order.
    pub headers: Vec<(String, String)>,
    /// What follows the headers.
    pub body: Vec<u8>,
}

impl Message {
    /// A response to the request with this number.
    pub fn response(code: u16, phrase: &str, cseq: &str) -> Self {
        let headers = vec![("CSeq".to_owned(), cseq.to_owned()), ("Server".to_owned(), "camring sim".to_owned())];
        Self { start: format!("RTSP/1.0 {code} {phrase}"), headers, body: Vec::new() }
    }

    /// The value of a header; names have no case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Changes a header, or adds it.
    pub fn set_header(&mut self, name: &str, value: String) {
        match self.headers.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value,
            None => self.headers.push((name.to_owned(), value)),
        }
    }

    /// The method of a request; the version in the case of a response.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or("")
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("RTSP/1.0 ")?.split(' ').next()?.parse().ok()
    }

    /// As it goes over the wire; the length of the body is stated as it is.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            if !name.eq_ignore_ascii_case("Content-Length") {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if !self.body.is_empty() || self.header("Content-Length").is_some() {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Why a stream cannot be followed; the connection is of no use any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WireError {
    /// A head or body beyond every use.
    #[error("a message is longer than a camera's messages are")]
    TooLong,
    /// Neither a message of RTSP 1.0 nor a packet.
    #[error("this is not RTSP 1.0")]
    NotRtsp,
}

/// Takes a stream apart.
#[derive(Debug, Default)]
pub struct Splitter {
    bytes: Vec<u8>,
    /// How far the bytes are used up.
    used: usize,
}

impl Splitter {
    /// Where to read the next bytes to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        self.bytes.reserve(READ_ROOM);
        &mut self.bytes
    }

    /// The next unit; `None` until more bytes are there.
    pub fn next(&mut self) -> Result<Option<Unit>, WireError> {
        let bytes = &self.bytes[self.used..];
        let (unit, len) = match bytes {
            [] => return Ok(None),
            [b'$', _, high, low, ..] => {
                let len = PACKET_HEAD + usize::from(u16::from_be_bytes([*high, *low]));
                match bytes.get(..len) {
                    Some(packet) => (Unit::Packet(packet.to_vec()), len),
                    None => return Ok(None),
                }
            }
            [b'$', ..] => return Ok(None),
            _ => match message(bytes)? {
                Some((message, len)) => (Unit::Message(message), len),
                None => return Ok(None),
            },
        };
        self.used += len;
        Ok(Some(unit))
    }
}

fn message(bytes: &[u8]) -> Result<Option<(Message, usize)>, WireError> {
    // Line ends between messages are allowed.
    let skipped = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let bytes = &bytes[skipped..];
    let Some(head_len) = bytes.windows(4).take(HEAD_MAX).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_MAX { Err(WireError::TooLong) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..head_len]).map_err(|_| WireError::NotRtsp)?;
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or("").to_owned();
    if !start.starts_with("RTSP/1.0 ") && !start.ends_with(" RTSP/1.0") {
        return Err(WireError::NotRtsp);
    }
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    let headers = lines.map(header).collect::<Option<Vec<_>>>().ok_or(WireError::NotRtsp)?;
    let mut message = Message { start, headers, body: Vec::new() };
    let body_len = match message.header("Content-Length") {
        None => 0,
        Some(text) => text.parse::<usize>().map_err(|_| WireError::NotRtsp)?,
    };
    if body_len > BODY_MAX {
        return Err(WireError::TooLong);
    }
    let end = head_len + 4 + body_len;
    let Some(body) = bytes.get(head_len + 4..end) else { return Ok(None) };
    message.body = body.to_vec();
    Ok(Some((message, skipped + end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"OPTIONS rtsp://h/s RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x00\x00\x03abc\
        RTSP/1.0 200 OK\r\nCSeq: 2\r\ncontent-length: 4\r\n\r\nbody$\x01\x00\x00";

    fn all(splitter: &mut Splitter) -> Vec<Unit> {
        std::iter::from_fn(|| splitter.next().unwrap()).collect()
    }

    #[test]
    fn a_stream_comes_apart_the_same_however_it_is_cut() {
        let mut whole = Splitter::default();
        whole.buffer().extend_from_slice(STREAM);
        let expected = all(&mut whole);
        assert_eq!(expected.len(), 4);
        assert_eq!(expected[1], Unit::Packet(b"$\x00\x00\x03abc".to_vec()));
        let Unit::Message(response) = &expected[2] else { panic!("{expected:?}") };
        assert_eq!(
            (response.status(), response.header("CSEQ"), &response.body[..]),
            (Some(200), Some("2"), &b"body"[..])
        );
        let mut byte_by_byte = Splitter::default();
        let mut found = Vec::new();
        for byte in STREAM {
            byte_by_byte.buffer().push(*byte);
            found.extend(all(&mut byte_by_byte));
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn a_message_is_written_with_the_length_that_its_body_has() {
        let mut message = Message::response(200, "OK", "7");
        message.set_header("Content-Length", "99".to_owned());
        message.body = b"v=0".to_vec();
        message.set_header("cseq", "8".to_owned());
        let text = String::from_utf8(message.to_bytes()).unwrap();
        assert_eq!(text, "RTSP/1.0 200 OK\r\nCSeq: 8\r\nServer: camring sim\r\nContent-Length: 3\r\n\r\nv=0");
    }

    #[test]
    fn what_is_no_rtsp_is_refused_and_nothing_grows_without_end() {
        let refusal = |bytes: &[u8]| {
            let mut splitter = Splitter::default();
            splitter.buffer().extend_from_slice(bytes);
            splitter.next()
        };
        assert_eq!(refusal(b"GET / HTTP/1.1\r\n\r\n"), Err(WireError::NotRtsp));
        assert_eq!(refusal(b"PLAY x RTSP/1.0\r\nno colon\r\n\r\n"), Err(WireError::NotRtsp));
        assert_eq!(refusal(b"PLAY x RTSP/1.0\r\nContent-Length: 9999999\r\n\r\n"), Err(WireError::TooLong));
        assert_eq!(refusal(b"PLAY x RTSP/1.0\r\nContent-Length: -1\r\n\r\n"), Err(WireError::NotRtsp));
        assert_eq!(refusal(&vec![b'x'; HEAD_MAX + 9]), Err(WireError::TooLong));
        assert_eq!(refusal(b"\xff\xfe\r\n\r\n"), Err(WireError::NotRtsp));
        assert_eq!(refusal(b"PLAY x RTSP/1.0\r\n"), Ok(None));
    }
}
