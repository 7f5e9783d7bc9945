//! What the guest is: its operating system, its name, its users and its load.

/// What there is to know of an operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OsFact {
    /// The kernel's release, as all that follows of uname(2).
    KernelRelease,
    /// The kernel's version.
    KernelVersion,
    /// The machine's architecture.
    Machine,
    /// `ID` of os-release(5), as all that follows.
    Id,
    /// `NAME`
    Name,
    /// `PRETTY_NAME`
    PrettyName,
    /// `VERSION`
    Version,
    /// `VERSION_ID`
    VersionId,
    /// `VARIANT`
    Variant,
    /// `VARIANT_ID`
    VariantId,
}

/// Somebody who is logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User<'a> {
    /// The name, in the encoding of whoever gave it.
    pub name: &'a [u8],
    /// The first of the logins that last, in microseconds since 1970.
    pub login_us: u64,
}

/// What the numbers of [`System::load`] are multiplied with.
pub const LOAD_SCALE: u64 = 65536;

/// What the guest is.
pub trait System {
    /// Tells what there is to know of the operating system, in the order of [`OsFact`].
    fn os_info(&mut self, each: &mut dyn FnMut(OsFact, &[u8]));

    /// Tells the name of the host, which need not be a fully qualified one.
    fn host_name(&mut self, show: &mut dyn FnMut(&[u8]));

    /// Walks over the users who are logged in, each of them once.
    fn users(&mut self, each: &mut dyn FnMut(User<'_>));

    /// The load averages over 1, 5 and 15 minutes, times [`LOAD_SCALE`].
    fn load(&mut self) -> [u64; 3];
}
