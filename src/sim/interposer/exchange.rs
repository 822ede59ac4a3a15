//! The RTSP conversation on one connection: what becomes of each request, response and packet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::super::script::{Action, Reports, Transport};
use super::active::{Active, Running};
use super::line::Line;
use super::wire::Message;
use super::{packets, sdp};

/// Requests that may wait for their answers; a client that sends more gets them unchanged.
const PENDING: usize = 64;
/// What a port says that belongs to a mail server.
const GARBAGE: &[u8] = b"220 mail.example ESMTP ready\r\n220 \0\xff\xfe garbage\r\n\r\n";

/// What becomes of a request.
#[derive(Debug, Eq, PartialEq)]
pub enum Reaction {
    /// It goes to the camera, so much later.
    Forward(Message, Duration),
    /// The client gets this.
    Answer(Vec<u8>),
    /// Nothing happens.
    Swallow,
}

/// A session of the camera, counted as long as it is there.
#[derive(Debug)]
struct Session {
    all: Arc<AtomicUsize>,
    begun: Instant,
}

impl Session {
    fn begin(all: &Arc<AtomicUsize>, begun: Instant) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self { all: Arc::clone(all), begun }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is known of one connection.
#[derive(Debug)]
pub struct Exchange {
    /// Number and method of the requests that wait for their answers.
    pending: VecDeque<(String, String)>,
    /// Channels that carry RTCP; the others carry RTP.
    rtcp: [bool; 256],
    /// Sessions of all connections.
    sessions: Arc<AtomicUsize>,
    /// The one of this connection, while it has one.
    session: Option<Session>,
    last_request: Instant,
    line: Line<Vec<u8>>,
    transport: Option<Transport>,
}

impl Exchange {
    /// Nothing is known yet; `transport` is what the client may have, `None` = nothing; `sessions` counts those of all
    /// connections.
    pub fn new(now: Instant, transport: Option<Transport>, sessions: Arc<AtomicUsize>) -> Self {
        Self {
            pending: VecDeque::new(),
            rtcp: [false; 256],
            sessions,
            session: None,
            last_request: now,
            line: Line::default(),
            transport,
        }
    }

    /// What becomes of a request.
    pub fn request(&mut self, mut request: Message, active: &Active, now: Instant) -> Reaction {
        self.last_request = now;
        let cseq = request.header("CSeq").unwrap_or("0").to_owned();
        if let Some(answer) = fault_of(&request, &cseq, active).or_else(|| self.refused(&request, &cseq, active)) {
            return answer;
        }
        if request.method() == "SETUP" && !keeps_transport(&mut request, self.transport) {
            return Reaction::Answer(Message::response(461, phrase(461), &cseq).to_bytes());
        }
        if self.pending.len() == PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back((cseq, request.method().to_owned()));
        let delay = delay_of(&request, active);
        Reaction::Forward(request, delay)
    }

    /// The answer that the client gets instead of this one; says whether it began to play.
    pub fn answer(&mut self, mut answer: Message, active: &Active) -> (Message, bool) {
        let cseq = answer.header("CSeq").unwrap_or("0");
        let at = self.pending.iter().position(|(known, _)| known == cseq);
        let method = at.and_then(|at| self.pending.remove(at)).map_or(String::new(), |(_, method)| method);
        if answer.status() != Some(200) {
            return (answer, false);
        }
        match method.as_str() {
            "DESCRIBE" => describe(&mut answer, active),
            "SETUP" => self.set_up(&mut answer, active),
            "TEARDOWN" => self.session = None,
            _ => {}
        }
        (answer, method == "PLAY")
    }

    /// The answer to a SETUP for which the camera has no session left.
    fn refused(&self, request: &Message, cseq: &str, active: &Active) -> Option<Reaction> {
        if request.method() != "SETUP" || self.session.is_some() {
            return None;
        }
        let taken = self.sessions.load(Ordering::Relaxed);
        active.running.iter().find_map(|running| {
            let Action::Sessions { max, code } = running.action else { return None };
            running.look();
            if taken < usize::from(max) {
                return None;
            }
            running.change();
            Some(Reaction::Answer(refusal(code, Duration::ZERO, cseq).to_bytes()))
        })
    }

    fn set_up(&mut self, answer: &mut Message, active: &Active) {
        self.session.get_or_insert_with(|| Session::begin(&self.sessions, self.last_request));
        let channels = answer.header("Transport").and_then(|transport| {
            let pair = transport.split(';').find_map(|part| part.trim().strip_prefix("interleaved="))?;
            pair.split_once('-')?.1.parse::<u8>().ok()
        });
        if let Some(rtcp) = channels {
            self.rtcp[usize::from(rtcp)] = true;
        }
        if let Some((running, timeout)) = session_timeout(active)
            && let Some(session) = answer.header("Session")
        {
            running.look();
            let id = session.split(';').next().unwrap_or(session);
            let value = format!("{id};timeout={}", timeout.as_secs());
            answer.set_header("Session", value);
        }
    }

    /// When the session is over unless a request comes before.
    pub fn deadline(&self, active: &Active) -> Option<Instant> {
        let (session, (running, timeout)) = self.session.as_ref().zip(session_timeout(active))?;
        let kept = matches!(running.action, Action::SessionTimeout { kept: true, .. });
        Some(if kept { self.last_request } else { session.begun } + timeout)
    }

    /// Counts a session that was over.
    pub fn expire(&mut self, active: &Active) {
        self.session = None;
        if let Some((running, _)) = session_timeout(active) {
            running.change();
        }
    }

    /// What the client gets for one packet of the camera, each with its delay.
    pub fn packet(&mut self, mut packet: Vec<u8>, active: &Active) -> Vec<(Duration, Vec<u8>)> {
        if packet.get(1).is_some_and(|channel| self.rtcp[usize::from(*channel)]) {
            return reports(&mut packet, active).then_some((Duration::ZERO, packet)).into_iter().collect();
        }
        let arriving = self.line.pass(packet, active, |packet| packets::mark_interleaved(packet));
        arriving.into_iter().map(|packet| (delay_of_packet(active), packet)).collect()
    }
}

/// The answer of the first fault that takes the request for itself.
fn fault_of(request: &Message, cseq: &str, active: &Active) -> Option<Reaction> {
    active.running.iter().find_map(|running| {
        let reaction = match running.action {
            Action::Garbage => Reaction::Answer(GARBAGE.to_vec()),
            Action::NoAnswer { method } if concerns(method, request) => Reaction::Swallow,
            Action::Status { method, code, retry_after } if concerns(method, request) => {
                Reaction::Answer(refusal(code, retry_after, cseq).to_bytes())
            }
            _ => return None,
        };
        running.look();
        running.change();
        Some(reaction)
    })
}

fn concerns(method: &str, request: &Message) -> bool {
    method == "any" || method == request.method()
}

fn refusal(code: u16, retry_after: Duration, cseq: &str) -> Message {
    let mut answer = Message::response(code, phrase(code), cseq);
    if code == 401 {
        let challenge = "Digest realm=\"camring sim\", nonce=\"5ca1ab1e\"";
        answer.set_header("WWW-Authenticate", challenge.to_owned());
    }
    if !retry_after.is_zero() {
        answer.set_header("Retry-After", retry_after.as_secs().max(1).to_string());
    }
    answer
}

/// The words of a status (RFC 2326).
fn phrase(code: u16) -> &'static str {
    match code {
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Time-out",
        453 => "Not Enough Bandwidth",
        454 => "Session Not Found",
        455 => "Method Not Valid in This State",
        461 => "Unsupported Transport",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "RTSP Version Not Supported",
        _ => "Fault",
    }
}

/// Leaves only the transports of the script in a SETUP; false when there is none.
///
/// Faults of packets act on one of them; on the other they would do nothing without a word.
fn keeps_transport(request: &mut Message, wanted: Option<Transport>) -> bool {
    let Some(proposed) = request.header("Transport") else { return true };
    let fits = |one: &&str| match wanted {
        Some(Transport::Tcp) => one.contains("/TCP"),
        Some(Transport::Udp) => !one.contains("/TCP") && !one.contains("multicast"),
        None => false,
    };
    let kept: Vec<&str> = proposed.split(',').map(str::trim).filter(fits).collect();
    let kept = kept.join(",");
    let any = !kept.is_empty();
    request.set_header("Transport", kept);
    any
}

fn delay_of(request: &Message, active: &Active) -> Duration {
    let delays = active.running.iter().filter_map(|running| match running.action {
        Action::Slow { method, delay } if concerns(method, request) => {
            running.look();
            running.change();
            Some(delay)
        }
        _ => None,
    });
    delays.sum()
}

fn describe(answer: &mut Message, active: &Active) {
    for running in &active.running {
        if let Action::Sdp(fault) = running.action {
            running.look();
            running.change();
            answer.body = sdp::spoil(&answer.body, fault);
        }
    }
}

fn session_timeout(active: &Active) -> Option<(&Arc<Running>, Duration)> {
    active.running.iter().find_map(|running| match running.action {
        Action::SessionTimeout { timeout, .. } => Some((running, timeout)),
        _ => None,
    })
}

/// Spoils the sender report in an RTCP packet; false when the packet is to be left out.
fn reports(packet: &mut [u8], active: &Active) -> bool {
    if !packets::has_sender_report(packet) {
        return true;
    }
    for running in &active.running {
        let Action::Reports { reports, seconds } = running.action else { continue };
        let number = running.look();
        running.change();
        match reports {
            Reports::None => return false,
            Reports::Shifted => packets::shift_clock(packet, seconds),
            Reports::Jumping => {
                let width = seconds.unsigned_abs();
                let chosen = running.below(number, 2 * width + 1);
                packets::shift_clock(packet, chosen.cast_signed() - width.cast_signed());
            }
        }
    }
    true
}

fn delay_of_packet(active: &Active) -> Duration {
    let delays = active.running.iter().filter_map(|running| match running.action {
        Action::Delay { delay, jitter } => {
            let number = running.look();
            running.change();
            let jitter_us = u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX);
            Some(delay + Duration::from_micros(running.below(number, jitter_us.saturating_add(1))))
        }
        _ => None,
    });
    delays.sum()
}

#[cfg(test)]
mod tests {
    use super::super::super::script::{Plan, Script, SdpFault};
    use super::*;
    use crate::config::SourceFile;

    /// Everything that a script of these faults has in force at its beginning.
    fn active(faults: &str) -> Active {
        let file = SourceFile::without_secrets("test.toml".into(), format!("fault = [{faults}]\n"));
        let plan = Plan::new(&Script::parse(&file).unwrap(), 1);
        Active { running: plan.map(|step| Arc::new(Running::new(step.action, step.chance))).collect(), cut: None }
    }

    fn request(method: &str, headers: &[(&str, &str)]) -> Message {
        let headers = [&[("CSeq", "3")], headers].concat();
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Message { start: format!("{method} rtsp://h/s RTSP/1.0"), headers, body: Vec::new() }
    }

    fn exchange(transport: Option<Transport>) -> Exchange {
        Exchange::new(Instant::now(), transport, Arc::default())
    }

    fn react(faults: &str, method: &str) -> Reaction {
        let now = Instant::now();
        exchange(Some(Transport::Tcp)).request(request(method, &[]), &active(faults), now)
    }

    #[test]
    fn a_request_is_answered_swallowed_or_late_as_the_script_says() {
        let Reaction::Answer(bytes) = react("{ do = \"status\", retry_after = \"7s\" }", "DESCRIBE") else { panic!() };
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("RTSP/1.0 503 Service Unavailable\r\nCSeq: 3\r\n"), "{text}");
        assert!(text.contains("Retry-After: 7\r\n"), "{text}");
        let Reaction::Answer(bytes) = react("{ do = \"status\", code = 401 }", "DESCRIBE") else { panic!() };
        assert!(String::from_utf8(bytes).unwrap().contains("WWW-Authenticate: Digest"));
        assert!(matches!(react("{ do = \"status\" }", "PLAY"), Reaction::Forward(_, Duration::ZERO)));
        assert_eq!(react("{ do = \"no-answer\", method = \"any\" }", "PLAY"), Reaction::Swallow);
        assert_eq!(react("{ do = \"garbage\" }", "OPTIONS"), Reaction::Answer(GARBAGE.to_vec()));
        let Reaction::Forward(_, delay) = react("{ do = \"slow\", delay = \"2s\" }", "DESCRIBE") else { panic!() };
        assert_eq!(delay, Duration::from_secs(2));
    }

    #[test]
    fn only_the_transport_of_the_script_passes() {
        const UDP: &str = "RTP/AVP;unicast;client_port=5000-5001";
        const TCP: &str = "RTP/AVP/TCP;interleaved=0-1";
        let now = Instant::now();
        let set_up = |transport: &str, wanted| {
            let request = request("SETUP", &[("Transport", transport)]);
            exchange(Some(wanted)).request(request, &Active::default(), now)
        };
        for (wanted, kept, other) in [(Transport::Tcp, TCP, UDP), (Transport::Udp, UDP, TCP)] {
            let both = set_up(&format!("{UDP},{TCP}"), wanted);
            let Reaction::Forward(request, _) = both else { panic!("{both:?}") };
            assert_eq!(request.header("Transport"), Some(kept));
            let Reaction::Answer(bytes) = set_up(other, wanted) else { panic!() };
            assert!(bytes.starts_with(b"RTSP/1.0 461 "));
            let answer = exchange(None).request(request, &Active::default(), now);
            assert!(matches!(answer, Reaction::Answer(_)), "{answer:?}");
        }
    }

    #[test]
    fn a_session_that_no_request_keeps_alive_has_a_deadline() {
        let (now, active) = (Instant::now(), active("{ do = \"session-timeout\", timeout = \"4s\" }"));
        let mut exchange = exchange(Some(Transport::Tcp));
        assert_eq!(exchange.deadline(&active), None);
        exchange.request(request("SETUP", &[]), &active, now);
        let mut answer = Message::response(200, "OK", "3");
        answer.set_header("Session", "abc;timeout=60".to_owned());
        answer.set_header("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1".to_owned());
        let (answer, plays) = exchange.answer(answer, &active);
        assert_eq!((answer.header("Session"), plays), (Some("abc;timeout=4"), false));
        assert_eq!(exchange.deadline(&active), Some(now + Duration::from_secs(4)));
        assert!(exchange.rtcp[1] && !exchange.rtcp[0]);
        let later = now + Duration::from_secs(3);
        exchange.request(request("GET_PARAMETER", &[]), &active, later);
        assert_eq!(exchange.deadline(&active), Some(later + Duration::from_secs(4)));
        let strict = self::active("{ do = \"session-timeout\", timeout = \"4s\", kept_by = \"nothing\" }");
        assert_eq!(exchange.deadline(&strict), Some(now + Duration::from_secs(4)));
        exchange.request(request("PLAY", &[]), &active, later);
        assert!(!exchange.answer(Message::response(454, "Session Not Found", "3"), &active).1);
        assert_eq!(active.running[0].counts().0, 1);
        let description = describe_with(SdpFault::Empty);
        assert!(description.body.is_empty());
    }

    #[test]
    fn a_session_too_many_is_refused_until_another_one_is_over() {
        let (now, active) = (Instant::now(), active("{ do = \"sessions\", max = 1 }"));
        let all = Arc::default();
        let mut connections = [(); 2].map(|()| Exchange::new(now, Some(Transport::Tcp), Arc::clone(&all)));
        let [first, second] = &mut connections;
        let ask = |exchange: &mut Exchange, method: &str| {
            let reaction = exchange.request(request(method, &[]), &active, now);
            if matches!(reaction, Reaction::Forward(..)) {
                exchange.answer(Message::response(200, "OK", "3"), &active);
            }
            reaction
        };
        assert!(matches!(ask(first, "SETUP"), Reaction::Forward(..)));
        assert!(matches!(ask(first, "SETUP"), Reaction::Forward(..)), "another stream of the same session");
        let Reaction::Answer(bytes) = ask(second, "SETUP") else { panic!() };
        assert!(bytes.starts_with(b"RTSP/1.0 453 "));
        assert!(matches!(ask(second, "DESCRIBE"), Reaction::Forward(..)));
        ask(first, "TEARDOWN");
        assert!(matches!(ask(second, "SETUP"), Reaction::Forward(..)));
        let [_, second] = connections;
        drop(second);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }

    fn describe_with(fault: SdpFault) -> Message {
        let running = Running::new(Action::Sdp(fault), Plan::new(&script("stall"), 1).next().unwrap().chance);
        let active = Active { running: vec![Arc::new(running)], cut: None };
        let mut exchange = exchange(Some(Transport::Tcp));
        exchange.request(request("DESCRIBE", &[]), &active, Instant::now());
        let answer = Message { body: b"v=0\r\n".to_vec(), ..Message::response(200, "OK", "3") };
        exchange.answer(answer, &active).0
    }

    fn script(word: &str) -> Script {
        let text = format!("[[fault]]\ndo = \"{word}\"\n");
        Script::parse(&SourceFile::without_secrets("test.toml".into(), text)).unwrap()
    }

    /// The numbers of 1000 packets as they come out.
    fn through(faults: &str) -> Vec<u16> {
        let (mut exchange, active) = (exchange(Some(Transport::Tcp)), active(faults));
        let packet = |number: u16| [b"$\x00\x00\x0c\x80\x60", &number.to_be_bytes()[..], &[0; 8]].concat();
        let out = (0..1000).flat_map(|number| exchange.packet(packet(number), &active));
        out.map(|(_, packet)| u16::from_be_bytes([packet[6], packet[7]])).collect()
    }

    #[test]
    fn packets_are_lost_doubled_and_reordered_at_the_rate_that_is_asked_for() {
        let lost = 1000 - through("{ do = \"loss\", percent = 5 }").len();
        assert!((25..=80).contains(&lost), "{lost} of 1000 lost at 5 percent");
        let doubled = through("{ do = \"duplicate\", percent = 5 }");
        let twice = doubled.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!((25..=80).contains(&twice) && doubled.len() == 1000 + twice, "{twice} of 1000 twice");
        let reordered = through("{ do = \"reorder\", percent = 5, by = 3 }");
        let late: Vec<usize> = (1..reordered.len()).filter(|&at| reordered[at] < reordered[at - 1]).collect();
        assert!((20..=80).contains(&late.len()), "{} of 1000 late", late.len());
        assert!(reordered.len() >= 996, "only {} of 1000 came", reordered.len());
        assert_eq!(through("{ do = \"loss\" }"), through("{ do = \"loss\" }"), "the same seed, the same packets");
    }

    #[test]
    fn sender_reports_are_left_out_or_moved() {
        let report = |faults: &str| {
            let mut exchange = exchange(Some(Transport::Tcp));
            exchange.rtcp[1] = true;
            let packet = [&b"$\x01\x00\x1c\x80\xc8\x00\x06"[..], &[0; 24]].concat();
            exchange.packet(packet, &active(faults)).pop().map(|(_, packet)| packet[12..16].to_vec())
        };
        assert_eq!(report("{ do = \"sender-reports\" }"), None);
        let shifted = report("{ do = \"sender-reports\", clock = \"shifted\", seconds = 256 }");
        assert_eq!(shifted, Some(vec![0, 0, 1, 0]));
        assert_eq!(report("{ do = \"loss\", percent = 100 }"), Some(vec![0; 4]), "RTCP is not RTP");
    }
}
