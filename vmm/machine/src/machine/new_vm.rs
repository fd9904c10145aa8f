//! A VM from KVM, however often the system interrupts that.

use kvm_ioctls::{Kvm, VmFd};

type Errno = vmm_sys_util::errno::Error;

/// KVM_CREATE_VM. The kernel gives it up with EINTR when anything at all is pending for this
/// thread, perhaps what a closed io_uring leaves behind (seen after one was): no handler has to run
/// for that. It says nothing about KVM, so it is asked again.
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
