//! Volume shadow copies: backups. Source: docs/spec/integration-services.md, section 8.

/// Bytes of a body. Linux requires all of them.
const BODY: usize = 12;

/// An operation. Linux knows those from [`VssOperation::HotBackup`] to [`VssOperation::Thaw`], and
/// answers to others that they failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VssOperation {
    /// Creates a shadow copy. Of old versions.
    Create,
    /// Deletes a shadow copy. Of old versions.
    Delete,
    /// Asks whether the guest can be backed up while it runs.
    HotBackup,
    /// Asks for the dynamic disks of the guest.
    DynamicDisks,
    /// The backup is complete.
    Complete,
    /// Freezes the file systems. The response comes when they are frozen.
    Freeze,
    /// Thaws the file systems.
    Thaw,
    /// Recovers the copy. Of Windows.
    AutoRecover,
}

impl VssOperation {
    fn number(self) -> u8 {
        match self {
            Self::Create => 0,
            Self::Delete => 1,
            Self::HotBackup => 2,
            Self::DynamicDisks => 3,
            Self::Complete => 4,
            Self::Freeze => 5,
            Self::Thaw => 6,
            Self::AutoRecover => 7,
        }
    }
}

/// Returns the body of a request.
pub fn request(operation: VssOperation) -> Vec<u8> {
    let mut body = vec![0; BODY];
    if let Some(first) = body.first_mut() {
        *first = operation.number();
    }
    body
}

/// Reads the flags of a response. Linux: 5, no automatic recovery. `None`: it is too short.
pub fn flags(body: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*body.get(8..)?.first_chunk()?))
}
