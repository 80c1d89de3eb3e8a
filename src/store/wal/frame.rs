//! The bytes of a segment: a header, then records, each behind a head that checks it.
//!
//! ```text
//!  header  "CBXWAL\r\n" │ format u32 │ crc u32 │ segment number u64             24 bytes
//!  head    length u32 │ crc u32 │ synced u64 │ body, padded to 8 bytes
//! ```
//! Numbers are little-endian; the checksum is CRC-32C over the segment's number, the record's
//! offset, its length, `synced` and the body. A length of `u32::MAX` closes the segment. Pure.

use std::cell::LazyCell;

/// Bytes in front of each body.
pub const HEAD_BYTES: usize = 16;
/// Bytes of the header.
pub const HEADER_BYTES: u64 = 24;
/// Bytes of an end record.
pub const END_BYTES: u64 = HEAD_BYTES as u64;

const MAGIC: &[u8; 8] = b"CBXWAL\r\n";
const ALIGN: usize = 8;
/// The length that an end record has.
const END: u32 = u32::MAX;

/// What a segment's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// They are whole, of this format and this segment.
    Ours,
    /// They are whole, of another format.
    Format(u32),
    /// There is no header, or it is broken, or another segment's.
    None,
}

/// What reading a segment found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Where the records end.
    pub end: u64,
    /// Whether an end record was found.
    pub closed: bool,
    /// Whether a later record says that what is bad had been safe.
    pub damaged: bool,
}

/// Returns how many bytes a body takes with its head and its padding.
pub fn framed_bytes(body: usize) -> u64 {
    (HEAD_BYTES + body.next_multiple_of(ALIGN)) as u64
}

/// Appends a record that will stand at `offset`.
///
/// # Panics
///
/// Where the body is longer than 2 GiB, which no caller's limit allows.
pub fn write(out: &mut Vec<u8>, number: u64, offset: u64, synced: u64, body: &[u8]) {
    let length = u32::try_from(body.len()).ok().filter(|length| *length < END / 2);
    let length = length.expect("a record is far below 2 GiB");
    put(out, number, offset, synced, length, body);
}

/// Appends the record that closes a segment.
pub fn write_end(out: &mut Vec<u8>, number: u64, offset: u64, synced: u64) {
    put(out, number, offset, synced, END, &[]);
}

fn put(out: &mut Vec<u8>, number: u64, offset: u64, synced: u64, length: u32, body: &[u8]) {
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(number, offset, length, synced, body).to_le_bytes());
    out.extend_from_slice(&synced.to_le_bytes());
    out.extend_from_slice(body);
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

fn checksum(number: u64, offset: u64, length: u32, synced: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(head_checksum(number, offset, length, synced), body)
}

/// Returns the checksum of a record without its body.
fn head_checksum(number: u64, offset: u64, length: u32, synced: u64) -> u32 {
    let mut head = [0; 28];
    head[..8].copy_from_slice(&number.to_le_bytes());
    head[8..16].copy_from_slice(&offset.to_le_bytes());
    head[16..20].copy_from_slice(&length.to_le_bytes());
    head[20..].copy_from_slice(&synced.to_le_bytes());
    crc32c::crc32c(&head)
}

/// Returns a segment's header.
pub fn header_bytes(number: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&super::FORMAT.to_le_bytes());
    out.extend_from_slice(&header_checksum(super::FORMAT, number).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out
}

fn header_checksum(format: u32, number: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&format.to_le_bytes()), &number.to_le_bytes())
}

/// Reads a segment's header.
pub fn header(image: &[u8], number: u64) -> Header {
    if image.get(..8) != Some(MAGIC) {
        return Header::None;
    }
    let (Some(format), Some(crc), Some(found)) =
        (u32_at(image, 8), u32_at(image, 12), u64_at(image, 16))
    else {
        return Header::None;
    };
    if crc != header_checksum(format, found) || found != number {
        return Header::None;
    }
    if format == super::FORMAT { Header::Ours } else { Header::Format(format) }
}

/// Tells whether a segment without a good header can only be one that was being made when power
/// was lost: records are written only after the header is safe, so it holds none of this number.
pub fn is_unused(image: &[u8], number: u64) -> bool {
    let start = usize::try_from(HEADER_BYTES).unwrap_or(0);
    anywhere(image, number, start).next().is_none()
}

/// Reads all records and decides what what follows them is.
pub fn scan(image: &[u8], number: u64, mut each: impl FnMut(&[u8])) -> Scan {
    let mut at = usize::try_from(HEADER_BYTES).unwrap_or(0);
    loop {
        match record(image, number, at) {
            Some(Found::Body(body)) => {
                each(body);
                at += usize::try_from(framed_bytes(body.len())).unwrap_or(usize::MAX);
            }
            Some(Found::End) => return Scan { end: at as u64, closed: true, damaged: false },
            None => break,
        }
    }
    // An end record says nothing: it is written and synced in one go with what is before it.
    let says = |found: &Head| found.length != END && found.synced > at as u64;
    let damaged = anywhere(image, number, at + ALIGN).any(|found| says(&found));
    Scan { end: at as u64, closed: false, damaged }
}

enum Found<'a> {
    Body(&'a [u8]),
    End,
}

/// Reads the record that begins there.
fn record(image: &[u8], number: u64, at: usize) -> Option<Found<'_>> {
    let head = head(image, at)?;
    let body = &image[at + HEAD_BYTES..][..head.body_bytes()];
    if head.crc != checksum(number, at as u64, head.length, head.synced, body) {
        return None;
    }
    Some(if head.length == END { Found::End } else { Found::Body(body) })
}

/// Finds whatever is a record from `start` on, wherever it begins.
///
/// Values may be made so that each eight bytes look like a head with a long body behind it: a checksum
/// of each would take days.
fn anywhere(image: &[u8], number: u64, start: usize) -> impl Iterator<Item = Head> {
    let sums = LazyCell::new(|| Sums::new(image));
    (start..image.len()).step_by(ALIGN).filter_map(move |at| {
        let head = head(image, at)?;
        let before = head_checksum(number, at as u64, head.length, head.synced);
        let crc = sums.append(before, at + HEAD_BYTES, head.body_bytes());
        (crc == head.crc).then_some(head)
    })
}

/// What stands in front of a body.
struct Head {
    length: u32,
    crc: u32,
    /// Up to where the segment was safe when it was written.
    synced: u64,
}

impl Head {
    fn body_bytes(&self) -> usize {
        if self.length == END { 0 } else { self.length as usize }
    }
}

/// Reads the head of what may be a record: there is room for its body, which was not looked at.
fn head(image: &[u8], at: usize) -> Option<Head> {
    let length = u32_at(image, at)?;
    if length == 0 {
        return None;
    }
    let (crc, synced) = (u32_at(image, at + 4)?, u64_at(image, at + 8)?);
    // What was safe before a record ends before it.
    if !(HEADER_BYTES..=at as u64).contains(&synced) {
        return None;
    }
    let head = Head { length, crc, synced };
    (head.body_bytes() <= image.len() - at - HEAD_BYTES).then_some(head)
}

/// How far apart [`Sums`] are: a sum of so many bytes takes about as long as the rest of a question.
const SUM_BYTES: usize = 4 << 10;
/// Lengths have so many bits.
const POWERS: usize = 32;

/// Checksums of any stretch of an image, each in about the time that a few KiB take: CRC is linear, so
/// that of a stretch follows from those of all that is in front of its two ends.
struct Sums<'a> {
    image: &'a [u8],
    /// Those of all in front of each multiple of [`SUM_BYTES`].
    every: Vec<u32>,
    /// What two to the power of so many zero bytes behind it make of a checksum, bit for bit.
    zeros: [[u32; 32]; POWERS],
}

impl<'a> Sums<'a> {
    fn new(image: &'a [u8]) -> Self {
        let mut every = vec![0];
        for piece in image.chunks(SUM_BYTES) {
            every.push(crc32c::crc32c_append(every[every.len() - 1], piece));
        }
        let mut zeros = [[0; 32]; POWERS];
        zeros[0] = std::array::from_fn(|bit| crc32c::crc32c_combine(1 << bit, 0, 1));
        for power in 1..POWERS {
            let half = zeros[power - 1];
            zeros[power] = half.map(|crc| shifted(crc, &half));
        }
        Self { image, every, zeros }
    }

    /// Returns the checksum of all in front of `end`.
    fn before(&self, end: usize) -> u32 {
        let known = end / SUM_BYTES;
        crc32c::crc32c_append(self.every[known], &self.image[known * SUM_BYTES..end])
    }

    /// Continues a checksum by that of a stretch.
    fn append(&self, crc: u32, start: usize, length: usize) -> u32 {
        if length < 2 * SUM_BYTES {
            return crc32c::crc32c_append(crc, &self.image[start..start + length]);
        }
        let mut crc = crc ^ self.before(start);
        for (power, zeros) in self.zeros.iter().enumerate() {
            if length >> power & 1 == 1 {
                crc = shifted(crc, zeros);
            }
        }
        crc ^ self.before(start + length)
    }
}

/// Returns what zero bytes behind it make of a checksum.
fn shifted(crc: u32, zeros: &[u32; 32]) -> u32 {
    let bits = zeros.iter().enumerate().filter(|(bit, _)| crc >> bit & 1 == 1);
    bits.fold(0, |sum, (_, image)| sum ^ image)
}

fn u32_at(image: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(image: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(image.get(at..at + 8)?.try_into().ok()?))
}
