use super::*;
use oci_spec::runtime::LinuxResources;

fn named(path: &str) -> std::result::Result<(String, String), String> {
    let path = Some(path).filter(|path| *path != "none");
    let name = name(path, "c1", "system.slice").map_err(|error| error.line())?;
    Ok((name.unit, name.slice))
}

#[test]
fn a_path_is_slice_prefix_and_name() {
    let named_as = |path, unit: &str, slice: &str| assert_eq!(named(path), Ok((unit.into(), slice.into())), "{path}");
    named_as("none", "runtime-c1.scope", "system.slice");
    named_as("", "runtime-c1.scope", "system.slice");
    named_as(":a:b", "a-b.scope", "system.slice");
    named_as("my.slice::b", "b.scope", "my.slice");
    named_as("-:a:b", "a-b.scope", "-.slice");
    named_as("a-b.slice:cri-containerd:0123", "cri-containerd-0123.scope", "a-b.slice");
    named_as(":a:b.slice", "b.slice", "system.slice");
    assert_eq!(
        named("/a/b"),
        Err("linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \
             \"/a/b\" instead"
            .into())
    );
    for path in ["a:b", "a:b:c:d", "x::b", "a/b.slice:p:n", "a--b.slice:p:n", ".slice:p:n", "-a.slice:p:n", "::"] {
        assert!(named(path).is_err(), "{path}");
    }
    for path in ["system.slice:p:a/b", "system.slice:p:", "system.slice:p:a b", "::-.slice"] {
        assert!(named(path).is_err(), "{path}");
    }
}

#[test]
fn a_slice_is_below_those_that_its_name_begins_with() {
    assert_eq!(expand("a.slice").unwrap(), "a.slice/");
    assert_eq!(expand("a-b-c.slice").unwrap(), "a.slice/a-b.slice/a-b-c.slice/");
    assert_eq!(expand("-.slice").unwrap(), "");
}

fn of_json(version: Version, resources: &str, systemd: u32) -> Vec<Property> {
    let resources: LinuxResources = serde_json::from_str(resources).unwrap();
    let settings = match version {
        Version::V1 => crate::cgroups::settings::v1(&resources),
        Version::V2 => crate::cgroups::settings::v2(&resources),
    };
    of_settings(&settings.unwrap(), &|_| None, &mut || systemd)
}

fn number(name: &str, value: u64) -> Property {
    (name.to_owned(), Value::U64(value))
}

fn mask(name: &str, bytes: &[u8]) -> Property {
    (name.to_owned(), Value::Array("y".to_owned(), bytes.iter().map(|byte| Value::Byte(*byte)).collect()))
}

#[test]
fn limits_of_v2_are_told_in_systemds_words() {
    let of = |resources| of_json(Version::V2, resources, 252);
    assert_eq!(
        of(r#"{"memory": {"limit": 1000, "reservation": 500, "swap": 3000}}"#),
        [number("MemorySwapMax", 2000), number("MemoryMax", 1000), number("MemoryLow", 500)]
    );
    assert_eq!(of(r#"{"memory": {"limit": -1}}"#), [number("MemorySwapMax", u64::MAX), number("MemoryMax", u64::MAX)]);
    assert_eq!(of(r#"{"pids": {"limit": 7}}"#), [number("TasksMax", 7)]);
    assert_eq!(of(r#"{"cpu": {"shares": 1024}}"#), [number("CPUWeight", 100)]);
    assert_eq!(
        of(r#"{"cpu": {"cpus": "0-2,8", "mems": "1"}}"#),
        [mask("AllowedCPUs", &[7, 1]), mask("AllowedMemoryNodes", &[2])]
    );
    assert_eq!(
        of(
            r#"{"unified": {"memory.high": "5", "memory.min": "max", "cpu.weight": "3", "pids.max": "9", "io.weight": "20"}}"#
        ),
        [
            number("CPUWeight", 3),
            number("IOWeight", 20),
            number("MemoryHigh", 5),
            number("MemoryMin", u64::MAX),
            number("TasksMax", 9)
        ]
    );
    // unified wins, here as in the files.
    assert_eq!(of(r#"{"pids": {"limit": 7}, "unified": {"pids.max": "9"}}"#), [number("TasksMax", 9)]);
}

#[test]
fn a_quota_is_by_the_second_and_rounded_up_to_10_ms() {
    let of = |resources| of_json(Version::V2, resources, 252);
    let quota = |per_second, period| [number("CPUQuotaPerSecUSec", per_second), number("CPUQuotaPeriodUSec", period)];
    assert_eq!(of(r#"{"cpu": {"quota": 50000, "period": 100000}}"#), quota(500_000, 100_000));
    assert_eq!(of(r#"{"cpu": {"quota": 5001, "period": 100000}}"#), quota(60_000, 100_000));
    assert_eq!(of(r#"{"cpu": {"quota": -1, "period": 50000}}"#), quota(u64::MAX, 50_000));
    let v1 = r#"{"cpu": {"quota": 20000, "period": 50000, "shares": 512}, "memory": {"limit": 9}, "blockIO": {"weight": 11}}"#;
    assert_eq!(
        of_json(Version::V1, v1, 252),
        [
            number("MemoryLimit", 9),
            number("CPUShares", 512),
            number("CPUQuotaPerSecUSec", 400_000),
            number("CPUQuotaPeriodUSec", 50_000),
            number("BlockIOWeight", 11)
        ]
    );
}

#[test]
fn what_is_not_given_is_what_the_files_say() {
    let setting = |version, json: &str| {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        settings::update(version, &resources, &|_| None).unwrap()
    };
    use crate::cgroups::settings;
    let quota =
        |per_second, period| vec![number("CPUQuotaPerSecUSec", per_second), number("CPUQuotaPeriodUSec", period)];
    let v2 = setting(Version::V2, r#"{"cpu": {"quota": 20000}}"#);
    let now = |file: &str| (file == "cpu.max").then(|| "max 50000\n".to_owned());
    assert_eq!(of_settings(&v2, &now, &mut || 252), quota(400_000, 50_000));
    let now = |file: &str| match file {
        "cpu.cfs_quota_us" => Some("20000\n".to_owned()),
        "cpu.cfs_period_us" => Some("50000\n".to_owned()),
        _ => None,
    };
    let v1 = setting(Version::V1, r#"{"cpu": {"quota": 10000}}"#);
    assert_eq!(of_settings(&v1, &now, &mut || 252), quota(200_000, 50_000));
    let v1 = setting(Version::V1, r#"{"cpu": {"period": 100000}}"#);
    assert_eq!(of_settings(&v1, &now, &mut || 252), quota(200_000, 100_000));
}

#[test]
fn newer_words_are_for_newer_systemd() {
    let idle = r#"{"cpu": {"idle": 1}}"#;
    assert_eq!(of_json(Version::V2, idle, 252), [number("CPUWeight", 0)]);
    assert_eq!(of_json(Version::V2, idle, 251), []);
    let group = r#"{"unified": {"memory.oom.group": "1"}}"#;
    assert_eq!(of_json(Version::V2, group, 253), [("OOMPolicy".to_owned(), Value::Str("kill".into()))]);
    assert_eq!(of_json(Version::V2, group, 252), []);
    let all = r#"{"cpu": {"quota": 50000, "period": 50000, "cpus": "0", "mems": "0"}}"#;
    let names = |systemd| of_json(Version::V2, all, systemd).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(241), ["CPUQuotaPerSecUSec"]);
    assert_eq!(names(243), ["CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec"]);
    assert_eq!(names(244), ["CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "AllowedCPUs", "AllowedMemoryNodes"]);
    let mut asked = 0;
    let settings = crate::cgroups::settings::v2(&serde_json::from_str(all).unwrap()).unwrap();
    of_settings(&settings, &|_| None, &mut || {
        asked += 1;
        244
    });
    assert_eq!(asked, 1);
}

#[test]
fn devices_are_a_list_where_they_can_be_one() {
    let of = |json: &str| {
        let resources: LinuxResources = serde_json::from_str(&format!(r#"{{"devices": {json}}}"#)).unwrap();
        of_devices(&devices::rules(Some(&resources)).unwrap())
    };
    let texts = |properties: &[Property]| match properties.last() {
        Some((name, Value::Array(_, entries))) if name == "DeviceAllow" => entries
            .iter()
            .map(|entry| match entry {
                Value::Struct(pair) => pair.iter().filter_map(Value::text).collect::<Vec<_>>().join(" "),
                _ => String::new(),
            })
            .collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let strict = of(r#"[{"allow": false}, {"allow": true, "type": "b", "major": 8, "access": "r"}]"#);
    assert_eq!(strict.first(), Some(&("DevicePolicy".to_owned(), Value::Str("strict".into()))));
    let list = texts(&strict);
    for entry in ["block-8 r", "/dev/char/1:3 rwm", "char-136 rwm", "char-* m", "block-* m"] {
        assert!(list.iter().any(|other| other == entry), "{entry}: {list:?}");
    }
    for open in [
        r#"[{"allow": true, "access": "rwm"}]"#,
        r#"[{"allow": false}, {"allow": true, "type": "c", "minor": 3, "access": "r"}]"#,
    ] {
        let open = of(open);
        assert_eq!(open.first(), Some(&("DevicePolicy".to_owned(), Value::Str("auto".into()))));
        assert_eq!((open.len(), texts(&open)), (2, vec![]));
    }
}

#[test]
fn values_are_read_as_the_kernel_reads_them() {
    let of = |resources| of_json(Version::V2, resources, 257);
    assert_eq!(of(r#"{"unified": {"memory.max": "512M"}}"#), [number("MemoryMax", 512 << 20)]);
    assert_eq!(of(r#"{"unified": {"memory.zswap.max": "1k"}}"#), [number("MemoryZSwapMax", 1024)]);
    assert_eq!(
        of(r#"{"unified": {"memory.zswap.writeback": "0"}}"#),
        [("MemoryZSwapWriteback".to_owned(), Value::Bool(false))]
    );
    assert_eq!(of(r#"{"cpu": {"cpus": "0-10:2/4"}}"#), [mask("AllowedCPUs", &[0b0011_0011, 0b11])]);
    // Idle no more: the weight is told again.
    let resources: LinuxResources = serde_json::from_str(r#"{"cpu": {"idle": 0}}"#).unwrap();
    let settings = crate::cgroups::settings::v2(&resources).unwrap();
    let now = |file: &str| (file == "cpu.weight").then(|| "77\n".to_owned());
    assert_eq!(of_settings(&settings, &now, &mut || 257), [number("CPUWeight", 77)]);
}
