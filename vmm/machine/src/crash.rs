//! The parameters of a guest's crash.

/// The guest's crash MSRs P0 to P4. Linux: P0 is its error code, P1 its OS id, the rest registers.
/// Windows: bug check code and parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashParameters(pub [u64; 5]);

impl std::fmt::Display for CrashParameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p0, p1, p2, p3, p4] = self.0;
        write!(f, "P0={p0:#x} P1={p1:#x} P2={p2:#x} P3={p3:#x} P4={p4:#x}")
    }
}
