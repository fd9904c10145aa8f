//! Tests of dynamic memory's keys.

use super::*;

fn with(pairs: &[(&'static str, &str)]) -> Result<VmConfig, String> {
    let flags: Vec<_> =
        pairs.iter().map(|(key, text)| Flag { key, text: (*text).to_owned() }).collect();
    VmConfig::from_toml("kernel = \"k\"", &flags).map_err(|error| error.to_string())
}

fn memory(text: &str) -> MemoryConfig {
    with(&[("memory", text)]).unwrap().memory
}

#[test]
fn test_memory_is_dynamic_with_a_bound_or_when_it_is_asked_for() {
    let sizes = |text| {
        let memory = memory(text);
        let mib = |size: ByteSize| size.bytes() >> 20;
        (memory.is_dynamic(), mib(memory.min()), mib(memory.size), mib(memory.max()))
    };
    assert_eq!(sizes("2G,min=512M,max=8G"), (true, 512, 2048, 8192));
    assert_eq!(sizes("2G,max=8G"), (true, 1024, 2048, 8192));
    assert_eq!(sizes("1001M,dynamic"), (true, 500, 1001, 1001));
    assert_eq!(sizes("2G,min=512M,dynamic=off"), (false, 512, 2048, 2048));
    assert!(!memory("2G").is_dynamic());
    let machine = |text| with(&[("memory", text)]).unwrap().machine();
    assert_eq!(machine("2G,max=8G").max_memory_bytes, 8 << 30);
    assert_eq!(machine("2G").max_memory_bytes, 0);
}

#[test]
fn test_memory_policy_has_documented_defaults_and_survives_print_config() {
    let memory = memory("2G,min=1G");
    let policy = (memory.buffer, memory.start_delay, memory.free_page_reporting);
    assert_eq!(policy, (20, 50, false));
    let text = "2G,min=1G,max=3G,buffer=35,start-delay=5,free-page-reporting=on";
    let config = with(&[("memory", text)]).unwrap();
    let again = VmConfig::from_toml(&config.to_toml().unwrap(), &[]).unwrap();
    assert_eq!(again.memory, config.memory);
    let hyperv = config.machine().hyperv;
    assert_eq!(hyperv.overrides.get(&HypervOption::ExtendedHypercalls), Some(&true));
}

#[test]
fn test_memory_bounds_that_cannot_be_are_refused() {
    let disk = ("disk", "a.img,buffers=fixed");
    for (pairs, parts) in [
        (&[("memory", "2G,min=3G")][..], &["2G", "min=3G"][..]),
        (&[("memory", "2G,max=1G")], &["2G", "max=1G"]),
        (&[("memory", "2G,min=1M")], &["too small"]),
        (&[("memory", "2G,max=5T")], &["too large"]),
        (&[("memory", "2G,hugepages,min=513M")], &["512M or 514M"]),
        (&[("memory", "2G,dynamic,buffer=501")], &["0 to 500"]),
        (&[("memory", "2G,dynamic,start-delay=86401")], &["86400"]),
        (&[("memory", "2G,dynamic"), disk], &["buffers=fixed"]),
        (&[("memory", "2G,dynamic"), ("hibernation", "on")], &["`hibernation` off"]),
        (&[("memory", "2G,least=1G")], &["least"]),
    ] {
        let error = with(pairs).expect_err("must be refused");
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert!(error.starts_with("--memory"), "{error}");
    }
}
