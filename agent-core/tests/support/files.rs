//! Files that exist in memory only.

use std::collections::BTreeMap;
use std::ffi::CStr;

use agent_core::guest::{Errno, FileAccess, FileMode, Files, Whence};

use super::FakeGuest;

/// Files that exist in memory only.
#[derive(Default)]
pub struct FakeFiles {
    pub contents: BTreeMap<String, Vec<u8>>,
    /// Open ones: their handles, names, modes and places.
    pub open: BTreeMap<i64, FakeFile>,
    pub opened: i64,
    /// What the next call fails with.
    pub error: Option<Errno>,
    /// Bytes that a read or write moves at most.
    pub bite: Option<usize>,
}

pub struct FakeFile {
    name: String,
    mode: FileMode,
    at: usize,
}

impl Files for FakeGuest {
    fn open_file(&mut self, path: &CStr, mode: FileMode) -> Result<i64, Errno> {
        let files = &mut self.files;
        if let Some(error) = files.error.take() {
            return Err(error);
        }
        let name = path.to_string_lossy().into_owned();
        match mode.access {
            FileAccess::Read if !files.contents.contains_key(&name) => return Err(Errno(2)),
            FileAccess::Write => drop(files.contents.insert(name.clone(), Vec::new())),
            _ => drop(files.contents.entry(name.clone()).or_default()),
        }
        let handle = 1000 + files.opened;
        files.opened += 1;
        files.open.insert(handle, FakeFile { name, mode, at: 0 });
        Ok(handle)
    }

    fn has_file(&self, handle: i64) -> bool {
        self.files.open.contains_key(&handle)
    }

    fn close_file(&mut self, handle: i64) -> Result<(), Errno> {
        self.files.open.remove(&handle).unwrap();
        self.files.error.take().map_or(Ok(()), Err)
    }

    fn read_file(&mut self, handle: i64, buffer: &mut [u8]) -> Result<usize, Errno> {
        if let Some(error) = self.files.error.take() {
            return Err(error);
        }
        let file = self.files.open.get_mut(&handle).unwrap();
        let rest = self.files.contents[&file.name].get(file.at..).unwrap_or_default();
        let bytes = buffer.len().min(rest.len()).min(self.files.bite.unwrap_or(usize::MAX));
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        file.at += bytes;
        Ok(bytes)
    }

    fn write_file(&mut self, handle: i64, bytes: &[u8]) -> Result<usize, Errno> {
        if let Some(error) = self.files.error.take() {
            return Err(error);
        }
        let file = self.files.open.get_mut(&handle).unwrap();
        if file.mode == (FileMode { access: FileAccess::Read, update: false }) {
            return Err(Errno(9));
        }
        let contents = self.files.contents.get_mut(&file.name).unwrap();
        if file.mode.access == FileAccess::Append {
            file.at = contents.len();
        }
        let bytes = &bytes[..bytes.len().min(self.files.bite.unwrap_or(usize::MAX))];
        if file.at > 1 << 20 {
            // EFBIG
            return Err(Errno(27));
        }
        contents.resize(contents.len().max(file.at + bytes.len()), 0);
        contents[file.at..file.at + bytes.len()].copy_from_slice(bytes);
        file.at += bytes.len();
        Ok(bytes.len())
    }

    fn seek_file(&mut self, handle: i64, offset: i64, whence: Whence) -> Result<i64, Errno> {
        let file = self.files.open.get_mut(&handle).unwrap();
        let from = match whence {
            Whence::Set => 0,
            Whence::Current => file.at,
            Whence::End => self.files.contents[&file.name].len(),
        };
        // EINVAL
        file.at = from.checked_add_signed(isize::try_from(offset).unwrap()).ok_or(Errno(22))?;
        Ok(i64::try_from(file.at).unwrap())
    }
}
