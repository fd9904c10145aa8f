//! The code of the fuzz targets. Each module's `run` takes any bytes, converts them to actions of a
//! hostile guest (or, for `image_files`, of the author of an image), and panics when the host
//! breaks a rule. This crate starts no threads (except those of qcow2 images), maps no memory for
//! an input, and prints nothing.
//!
//! Memory is created once for each thread and used again. The content that an input left there must
//! not affect a later input.

pub mod display_protocols;
pub mod dynamic_memory;
mod firmware_model;
pub mod firmware_platform;
pub mod gpa_direct;
pub mod gpadl_assembly;
pub mod host_messages;
mod image_bases;
mod image_changes;
mod image_checksums;
pub mod image_files;
mod input;
mod memory_file;
pub mod msvm_firmware;
mod network_model;
pub mod network_protocol;
mod network_shares;
mod packet_model;
mod page_list;
pub mod rfb;
mod ring_model;
pub mod ring_reading;
pub mod service_protocols;
pub mod socket_streams;
mod twin;

// Links to the host's property test (vmbus/host/tests/property), whose model has all rules on which
// a guest may rely. The guest and the devices are the same here, with another source of choices.
mod common;
#[allow(unreachable_pub, reason = "a test program's own")]
mod model;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "a test program's own; its generator is not used here"
)]
mod steps;
#[allow(dead_code, unreachable_pub, reason = "a test program's own; its counts are not used here")]
mod tally;
#[allow(dead_code, unreachable_pub, reason = "a test program's own")]
pub mod web;
mod world;

/// Makes a program of a target: libFuzzer's under cargo-fuzz, otherwise one that plays files
/// ([`replay`]).
#[macro_export]
macro_rules! target {
    ($run:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $run(data));

        #[cfg(not(fuzzing))]
        fn main() {
            $crate::replay($run);
        }
    };
}

/// Runs the files that the command line names: an input that failed, in a plain build and under a
/// debugger.
pub fn replay(run: fn(&[u8])) {
    for path in std::env::args_os().skip(1) {
        let data =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        run(&data);
        println!("{}: passed", path.display());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Runs every seed of a target. Returns their number.
    fn play(target: &str, run: fn(&[u8])) -> usize {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        let seeds = fs::read_dir(&folder).unwrap();
        seeds.map(|seed| run(&fs::read(seed.unwrap().path()).unwrap())).count()
    }

    #[test]
    fn test_every_seed_passes() {
        assert!(play("host_messages", crate::host_messages::run) >= 10);
        assert!(play("gpadl_assembly", crate::gpadl_assembly::run) >= 10);
        assert!(play("ring_reading", crate::ring_reading::run) >= 10);
        assert!(play("gpa_direct", crate::gpa_direct::run) >= 10);
        assert!(play("image_files", crate::image_files::run) >= 10);
        assert!(play("network_protocol", crate::network_protocol::run) >= 10);
        assert!(play("msvm_firmware", crate::msvm_firmware::run) >= 10);
        assert!(play("display_protocols", crate::display_protocols::run) >= 10);
        assert!(play("socket_streams", crate::socket_streams::run) >= 10);
        assert!(play("rfb", crate::rfb::run) >= 10);
        assert!(play("web", crate::web::run) >= 10);
        assert!(play("dynamic_memory", crate::dynamic_memory::run) >= 5);
        assert!(play("firmware_platform", crate::firmware_platform::run) >= 5);
        assert!(play("service_protocols", crate::service_protocols::run) >= 6);
    }

    #[test]
    fn test_input_of_no_bytes_passes() {
        for run in [
            crate::host_messages::run,
            crate::gpadl_assembly::run,
            crate::ring_reading::run,
            crate::gpa_direct::run,
            crate::image_files::run,
            crate::network_protocol::run,
            crate::msvm_firmware::run,
            crate::display_protocols::run,
            crate::rfb::run,
            crate::web::run,
            crate::dynamic_memory::run,
            crate::firmware_platform::run,
            crate::socket_streams::run,
            crate::service_protocols::run,
        ] {
            run(&[]);
        }
    }
}
