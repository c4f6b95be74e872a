//! As much of HTTP/1.1 as the generator and the stub need: where a message ends.

use std::ops::Range;

/// The whole message at the beginning of some bytes.
pub struct Message {
    /// Its body.
    pub body: Range<usize>,
}

/// The message that `bytes` begin with, if they hold the whole of it.
pub fn message(bytes: &[u8]) -> Option<Message> {
    let head_len = find(bytes, b"\r\n\r\n")? + 4;
    let end = head_len + content_length(&bytes[..head_len]);
    (bytes.len() >= end).then_some(Message { body: head_len..end })
}

/// The status of the answer that `bytes` begin with.
pub fn status(bytes: &[u8]) -> u16 {
    let digits = std::str::from_utf8(&bytes[9..12]).unwrap();
    digits.parse().unwrap_or_else(|_| panic!("not HTTP: {}", String::from_utf8_lossy(bytes)))
}

/// Where `needle` begins.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn content_length(head: &[u8]) -> usize {
    head.split(|byte| *byte == b'\n')
        .find_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let is_length = line[..colon].eq_ignore_ascii_case(b"content-length");
            is_length.then(|| std::str::from_utf8(&line[colon + 1..]).unwrap().trim())
        })
        .map_or(0, |length| length.parse().unwrap())
}
