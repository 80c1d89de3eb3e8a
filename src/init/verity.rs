//! dm-verity: a block device that returns only what the root hash vouches for.
//!
//! One wrong block panics the kernel: it restarts, and the boot counter falls back to the other slot.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use crate::Refusal;
use crate::roothash::{self, RootHash};

const CONTROL: &str = "/dev/mapper/control";

/// What the device is called; systemd and people find it as `usr`.
const NAME: &str = "usr";
const UUID: &str = "CRYPT-VERITY-usr";

const SUPERBLOCK_BYTES: usize = 512;
const BLOCK_BYTES: u32 = 4096;
const SALT_BYTES_MAX: usize = 256;

/// Bytes of the kernel's `struct dm_ioctl`, which every request begins with.
const HEADER_BYTES: usize = 312;
/// Bytes of `struct dm_target_spec`, which follows where a table is loaded.
const TARGET_BYTES: usize = 40;
/// A request of ours, with room for the table: two paths, two hashes and a few words.
const REQUEST_BYTES: usize = 2048;

const READ_ONLY: u32 = 1;

const CREATE: Opcode = opcode::read_write::<[u8; HEADER_BYTES]>(0xfd, 3);
const RESUME: Opcode = opcode::read_write::<[u8; HEADER_BYTES]>(0xfd, 6);
const LOAD: Opcode = opcode::read_write::<[u8; HEADER_BYTES]>(0xfd, 9);

/// What the head of a hash tree says about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    data_blocks: u64,
    salt: Vec<u8>,
}

/// A hash tree that we did not make.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSuperblock {
    #[error("it does not begin with `verity`")]
    Signature,
    #[error("it is not version 1, SHA-256, with blocks of {BLOCK_BYTES} bytes")]
    Parameters,
    #[error("its salt is longer than {SALT_BYTES_MAX} bytes")]
    Salt,
}

/// What device-mapper is asked for, laid out as the kernel reads it.
#[repr(C, align(8))]
struct Request([u8; REQUEST_BYTES]);

/// Opens `data` under its hash tree and returns the device that checks every block.
pub(crate) fn open(data: &Path, tree: &Path, hash: &RootHash) -> Result<PathBuf, Refusal> {
    let unreadable = |source| Refusal::Read { path: tree.into(), source };
    let mut head = [0; SUPERBLOCK_BYTES];
    File::open(tree).and_then(|mut file| file.read_exact(&mut head)).map_err(unreadable)?;
    let superblock =
        superblock(&head).map_err(|source| Refusal::HashTree { path: tree.into(), source })?;
    let table = table(&superblock, data, tree, hash);
    let control = fs::OpenOptions::new().read(true).write(true).open(CONTROL);
    let control = control.map_err(|source| Refusal::Read { path: CONTROL.into(), source })?;
    let failed = |step| move |source| Refusal::DeviceMapper { step, source };
    let sectors = superblock.data_blocks * u64::from(BLOCK_BYTES / 512);
    let minor = minor(&ask::<CREATE>(&control, creation()).map_err(failed("create"))?);
    ask::<LOAD>(&control, loading(sectors, &table)).map_err(failed("load"))?;
    ask::<RESUME>(&control, addressed(0)).map_err(failed("start"))?;
    Ok(format!("/dev/dm-{minor}").into())
}

/// Reads the head of a hash tree. Everything but its size and salt must be as we make it.
pub(crate) fn superblock(head: &[u8; SUPERBLOCK_BYTES]) -> Result<Superblock, BadSuperblock> {
    if !head.starts_with(b"verity\0\0") {
        return Err(BadSuperblock::Signature);
    }
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let algorithm = head[32..64].split(|byte| *byte == 0).next();
    let ours = [(8, 1), (12, 1), (64, BLOCK_BYTES), (68, BLOCK_BYTES)]
        .iter()
        .all(|(at, expected)| number(*at) == *expected);
    if !ours || algorithm != Some(b"sha256") {
        return Err(BadSuperblock::Parameters);
    }
    let salt_bytes = usize::from(u16::from_le_bytes([head[80], head[81]]));
    if salt_bytes > SALT_BYTES_MAX {
        return Err(BadSuperblock::Salt);
    }
    let data_blocks = u64::from(number(72)) | u64::from(number(76)) << 32;
    Ok(Superblock { data_blocks, salt: head[88..88 + salt_bytes].to_vec() })
}

/// Writes the parameters of the kernel's `verity` target.
fn table(superblock: &Superblock, data: &Path, tree: &Path, hash: &RootHash) -> String {
    let salt = roothash::hex(&superblock.salt);
    let salt = if salt.is_empty() { "-" } else { &salt };
    format!(
        "1 {} {} {BLOCK_BYTES} {BLOCK_BYTES} {} 1 sha256 {hash} {salt} 1 panic_on_corruption",
        data.display(),
        tree.display(),
        superblock.data_blocks,
    )
}

impl Request {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_number(&mut self, at: usize, number: usize) {
        let number = u32::try_from(number).expect("every length here is below REQUEST_BYTES");
        self.put(at, &number.to_le_bytes());
    }
}

/// A request about our device, without arguments.
fn addressed(flags: u32) -> Request {
    let mut request = Request([0; REQUEST_BYTES]);
    request.put_number(0, 4);
    request.put_number(12, REQUEST_BYTES);
    request.put_number(16, HEADER_BYTES);
    request.put(28, &flags.to_le_bytes());
    request.put(48, NAME.as_bytes());
    request
}

fn creation() -> Request {
    let mut request = addressed(0);
    request.put(176, UUID.as_bytes());
    request
}

fn loading(sectors: u64, table: &str) -> Request {
    let mut request = addressed(READ_ONLY);
    request.put_number(20, 1);
    request.put(HEADER_BYTES + 8, &sectors.to_le_bytes());
    let next = (TARGET_BYTES + table.len() + 1).next_multiple_of(8);
    request.put_number(HEADER_BYTES + 20, next);
    request.put(HEADER_BYTES + 24, b"verity");
    request.put(HEADER_BYTES + TARGET_BYTES, table.as_bytes());
    request
}

/// Reads the minor number of the device that an answer is about.
fn minor(answer: &Request) -> u64 {
    let device = u64::from_le_bytes(std::array::from_fn(|at| answer.0[40 + at]));
    (device & 0xff) | ((device >> 12) & !0xff)
}

#[expect(unsafe_code, reason = "rustix has no device-mapper; this is the seam to it")]
fn ask<const CODE: Opcode>(control: &File, mut request: Request) -> Result<Request, Errno> {
    // SAFETY: the code is one of device-mapper's, all of which read and write a `dm_ioctl` that is
    // as long as its own `data_size` says; `addressed` writes the buffer's true length there.
    let call = unsafe { Updater::<CODE, Request>::new(&mut request) };
    // SAFETY: as above; the buffer outlives the call.
    unsafe { ioctl(control, call) }?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> [u8; SUPERBLOCK_BYTES] {
        let mut head = [0; SUPERBLOCK_BYTES];
        head[..6].copy_from_slice(b"verity");
        head[8] = 1;
        head[12] = 1;
        head[32..38].copy_from_slice(b"sha256");
        head[64..68].copy_from_slice(&4096u32.to_le_bytes());
        head[68..72].copy_from_slice(&4096u32.to_le_bytes());
        head[72..80].copy_from_slice(&57_000u64.to_le_bytes());
        head[80] = 2;
        head[88..90].copy_from_slice(&[0xc0, 0x5e]);
        head
    }

    #[test]
    fn a_hash_tree_becomes_a_line_for_the_kernel() {
        let read = superblock(&head()).unwrap();
        let digits = "ab".repeat(32);
        let hash = roothash::from_cmdline(&format!("usrhash={digits}")).unwrap();
        let line = table(&read, Path::new("/dev/vda2"), Path::new("/dev/vda3"), &hash);
        let expected = format!(
            "1 /dev/vda2 /dev/vda3 4096 4096 57000 1 sha256 {digits} c05e 1 panic_on_corruption"
        );
        assert_eq!(line, expected);
        let request = loading(456_000, &line);
        assert_eq!(request.0[HEADER_BYTES + TARGET_BYTES..][..line.len()], *line.as_bytes());
        assert_eq!(request.0[HEADER_BYTES + 8..][..8], 456_000u64.to_le_bytes());
    }

    #[test]
    fn a_hash_tree_of_another_make_is_refused() {
        let check = |at: usize, wrong: u8, refusal: BadSuperblock| {
            let mut head = head();
            head[at] = wrong;
            assert_eq!(superblock(&head), Err(refusal), "byte {at}");
        };
        check(0, b'V', BadSuperblock::Signature);
        for at in [8, 12, 32, 38, 65, 69] {
            check(at, 7, BadSuperblock::Parameters);
        }
        check(81, 2, BadSuperblock::Salt);
    }

    #[test]
    fn a_minor_number_above_255_is_read_whole() {
        let mut answer = addressed(0);
        answer.put(40, &0x0010_fe05_u64.to_le_bytes());
        assert_eq!(minor(&answer), 0x105);
    }
}
