//! Creation of a VM, with a retry after each interruption.

use kvm_ioctls::{Kvm, VmFd};

type Errno = vmm_sys_util::errno::Error;

/// Creates a VM (KVM_CREATE_VM). The kernel fails with EINTR when any work is pending for this
/// thread, for example after an io_uring was closed, even if no signal handler runs. The error has
/// no meaning for KVM, so the call is repeated.
pub fn new_vm(kvm: &Kvm) -> Result<VmFd, Errno> {
    uninterrupted(|| kvm.create_vm())
}

fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(error) if error.errno() == libc::EINTR => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_uninterrupted_asks_again_after_an_interruption_only() {
        let mut answers = [libc::EINTR, libc::EINTR, libc::ENOMEM, 0].into_iter();
        let ended: Result<(), Errno> = uninterrupted(|| Err(Errno::new(answers.next().unwrap())));
        assert_eq!(ended.unwrap_err().errno(), libc::ENOMEM);
        assert_eq!(answers.next(), Some(0));
    }
}
