//! The measured loads on a disk. Each has a fixed number of requests, so that counts are exact and
//! the time in an emulated host is limited.

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    /// The value of fio's `rw`.
    pub(super) pattern: &'static str,
    /// Bytes per request.
    pub(super) block: u32,
    /// Requests in flight per job.
    pub(super) depth: u32,
    /// Number of concurrent jobs.
    pub(super) jobs: u32,
    /// Requests of all jobs together.
    pub(super) requests: u32,
}

/// Requests of a whole run by kind, and the divisor for `--quick`.
const RANDOM_ALONE: u32 = 1200;
const RANDOM_DEEP: u32 = 8000;
const SEQUENTIAL_128K: u32 = 1000;
const SEQUENTIAL_1M: u32 = 128;
const QUICK: u32 = 4;

/// Requests in flight of the sequential loads.
const SEQUENTIAL_DEPTH: u32 = 8;

impl Case {
    /// Returns all cases, in the order of measurement.
    pub(super) fn all(quick: bool) -> Vec<Case> {
        let mut cases = Vec::new();
        for pattern in ["randread", "randwrite"] {
            for (depth, jobs, requests) in
                [(1, 1, RANDOM_ALONE), (32, 1, RANDOM_DEEP), (32, 4, RANDOM_DEEP)]
            {
                cases.push(Case { pattern, block: 4 << 10, depth, jobs, requests });
            }
        }
        for pattern in ["read", "write"] {
            for (block, requests) in [(128 << 10, SEQUENTIAL_128K), (1 << 20, SEQUENTIAL_1M)] {
                cases.push(Case { pattern, block, depth: SEQUENTIAL_DEPTH, jobs: 1, requests });
            }
        }
        if quick {
            for case in &mut cases {
                case.requests = (case.requests / QUICK).next_multiple_of(case.jobs);
            }
        }
        cases
    }

    /// Returns the smallest load of `jobs` jobs, which shows the cost of everything but requests.
    pub(super) fn nearly_nothing(jobs: u32) -> Case {
        Case { pattern: "randread", block: 4 << 10, depth: 1, jobs, requests: jobs }
    }

    /// Returns the name, such as `randread_4k_qd32` or `randread_4k_4x32`.
    pub(super) fn name(&self) -> String {
        let block = if self.block < 1 << 20 {
            format!("{}k", self.block >> 10)
        } else {
            format!("{}m", self.block >> 20)
        };
        match self.jobs {
            1 => format!("{}_{block}_qd{}", self.pattern, self.depth),
            jobs => format!("{}_{block}_{jobs}x{}", self.pattern, self.depth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::medium::IMAGE_BYTES;
    use super::*;

    #[test]
    fn test_cases_have_names_of_their_own() {
        let mut names: Vec<String> = Case::all(false).iter().map(Case::name).collect();
        assert_eq!(names[2], "randread_4k_4x32");
        assert_eq!(names[9], "write_1m_qd8");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 10);
    }

    #[test]
    fn test_sequential_cases_end_before_their_image_does() {
        for case in Case::all(false).iter().filter(|case| !case.pattern.starts_with("rand")) {
            assert!(u64::from(case.block) * u64::from(case.requests) <= IMAGE_BYTES, "{case:?}");
        }
    }

    #[test]
    fn test_cases_share_their_requests_evenly_among_jobs() {
        for case in [Case::all(true), Case::all(false)].concat() {
            assert!(
                case.requests >= case.jobs && case.requests.is_multiple_of(case.jobs),
                "{case:?}"
            );
        }
    }
}
