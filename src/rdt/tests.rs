//! Against a directory. What the kernel does by itself, the tests do: a group's files come with mkdir, and go with rmdir.

use std::fs;

use super::*;
use crate::plan::rdt::SchemaLine;

struct Resctrl(PathBuf);

impl Resctrl {
    fn new(test: &str) -> Self {
        let root = std::env::temp_dir().join(format!("runtime-resctrl-{}-{test}", std::process::id()));
        fs::create_dir_all(root.join("info")).unwrap();
        fs::write(root.join("info/last_cmd_status"), "ok\n").unwrap();
        let tree = Self(root);
        tree.fill("");
        tree
    }

    /// The files of a group that was made.
    fn fill(&self, class: &str) {
        let class = self.0.join(class);
        fs::create_dir(class.join("mon_groups")).unwrap();
        fs::write(class.join("tasks"), "").unwrap();
        fs::write(class.join("schemata"), "").unwrap();
    }

    fn class(&self, name: &str, schemata: &str) {
        fs::create_dir(self.0.join(name)).unwrap();
        self.fill(name);
        fs::write(self.0.join(name).join("schemata"), schemata).unwrap();
    }

    /// The files of a group that is about to be removed.
    fn empty(&self, group: &str) {
        let group = self.0.join(group);
        let _ = fs::remove_file(group.join("tasks"));
        let _ = fs::remove_file(group.join("schemata"));
        let _ = fs::remove_dir(group.join("mon_groups"));
    }

    fn there(&self, group: &str) -> bool {
        self.0.join(group).is_dir()
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    fn look(&self, plan: &RdtPlan) -> Result<Groups> {
        Groups::look(Some(&self.0), plan)
    }
}

impl Drop for Resctrl {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn line(field: &str, line: &str) -> SchemaLine {
    let compare = !field.starts_with("schemata");
    SchemaLine { field: format!("linux.intelRdt.{field}"), line: line.to_owned(), compare }
}

fn plan(class: &str, named: bool, lines: Vec<SchemaLine>, monitoring: bool) -> RdtPlan {
    RdtPlan { class: class.to_owned(), named, lines, monitoring: monitoring.then(|| "box".to_owned()) }
}

const PID: i32 = 4711;

fn pid() -> Pid {
    Pid::from_raw(PID).unwrap()
}

#[test]
fn a_class_of_its_own_comes_and_goes_with_the_container() {
    let tree = Resctrl::new("own");
    let plan = plan(
        "box",
        false,
        vec![line("l3CacheSchema", "L3:0=f"), line("memBwSchema", "MB:0=20"), line("schemata[0]", "L2:0=1")],
        true,
    );
    let groups = tree.look(&plan).unwrap();
    assert!(!tree.there("box"), "look makes nothing");
    groups.make_class().unwrap();
    tree.fill("box");
    groups.write_schemata(&plan.lines).unwrap();
    groups.make_monitoring().unwrap();
    fs::write(tree.0.join("box/mon_groups/box/tasks"), "").unwrap();
    groups.join(pid()).unwrap();
    assert_eq!(tree.text("box/schemata"), "L3:0=f\nMB:0=20\nL2:0=1\n");
    groups.update(&[line("memBwSchema", "MB:0=70")], || Ok(())).unwrap();
    assert!(tree.text("box/schemata").starts_with("MB:0=70\n"));
    assert_eq!(tree.text("box/tasks"), PID.to_string());
    assert_eq!(tree.text("box/mon_groups/box/tasks"), PID.to_string());
    // What delete knows is the record.
    let record: Groups = serde_json::from_str(&serde_json::to_string(&groups).unwrap()).unwrap();
    tree.empty("box/mon_groups/box");
    fs::remove_file(tree.0.join("box/tasks")).unwrap();
    fs::remove_file(tree.0.join("box/schemata")).unwrap();
    assert!(record.remove().is_err(), "mon_groups is left, so the class cannot be gone");
    assert!(!tree.there("box/mon_groups/box"));
    tree.empty("box");
    record.remove().unwrap();
    assert!(!tree.there("box"));
    record.remove().unwrap();
    assert_eq!(tree.text("tasks"), "", "the default class is not touched");
}

#[test]
fn a_class_that_was_there_under_the_containers_id_stays() {
    let tree = Resctrl::new("there");
    tree.class("box", "L3:0=ff\n");
    let groups = tree.look(&plan("box", false, Vec::new(), false)).unwrap();
    groups.make_class().unwrap();
    groups.join(pid()).unwrap();
    assert_eq!(tree.text("box/schemata"), "L3:0=ff\n");
    tree.empty("box");
    groups.remove().unwrap();
    groups.undo().unwrap();
    assert!(tree.there("box"));
}

#[test]
fn a_named_class_is_made_with_a_schema_only_and_stays() {
    let tree = Resctrl::new("named");
    let error = tree.look(&plan("gold", true, Vec::new(), false)).unwrap_err();
    assert!(error.line().starts_with("linux.intelRdt.closID: there is no class of service "), "{error}");
    let plan = plan("gold", true, vec![line("schemata[0]", "L3:0=f")], false);
    let groups = tree.look(&plan).unwrap();
    groups.make_class().unwrap();
    tree.fill("gold");
    groups.write_schemata(&plan.lines).unwrap();
    assert_eq!(tree.text("gold/schemata"), "L3:0=f\n");
    tree.empty("gold");
    groups.remove().unwrap();
    assert!(tree.there("gold"), "delete leaves it");
    groups.undo().unwrap();
    assert!(!tree.there("gold"), "a failed create does not");
}

#[test]
fn a_named_class_that_somebody_else_has_joined_survives_a_failed_create() {
    let tree = Resctrl::new("joined");
    let groups = tree.look(&plan("gold", true, vec![line("schemata[0]", "L3:0=f")], false)).unwrap();
    groups.make_class().unwrap();
    fs::write(tree.0.join("gold/tasks"), "17\n").unwrap();
    groups.undo().unwrap();
    assert!(tree.there("gold"));
}

#[test]
fn a_named_class_that_is_there_must_have_the_schema() {
    let tree = Resctrl::new("compare");
    tree.class("gold", "    L3:0=00ff;1=00ff\n    MB:0= 20\n");
    let look = |lines| tree.look(&plan("gold", true, lines, false));
    look(vec![line("l3CacheSchema", "L3:0=ff"), line("memBwSchema", "MB:0=20")]).unwrap();
    let text = look(vec![line("l3CacheSchema", "L3:0=ff"), line("memBwSchema", "MB:0=30")]).unwrap_err().to_string();
    assert!(text.starts_with("linux.intelRdt.memBwSchema: \"MB:0=30\" is not what "), "{text}");
    assert!(text.contains("gold/schemata\" has: \"MB:0= 20\"\nhint: "), "{text}");
    // schemata is written, not compared; and a class that is named alone is used as it is.
    look(vec![line("schemata[0]", "L3:0=1")]).unwrap();
    let groups = look(Vec::new()).unwrap();
    groups.make_class().unwrap();
    groups.write_schemata(&[]).unwrap();
    groups.join(pid()).unwrap();
    assert_eq!(tree.text("gold/schemata"), "    L3:0=00ff;1=00ff\n    MB:0= 20\n");
    assert_eq!(tree.text("gold/tasks"), PID.to_string());
}

#[test]
fn the_default_class_is_the_mount_itself() {
    let tree = Resctrl::new("default");
    let groups = tree.look(&plan("", true, Vec::new(), true)).unwrap();
    groups.make_class().unwrap();
    groups.make_monitoring().unwrap();
    fs::write(tree.0.join("mon_groups/box/tasks"), "").unwrap();
    groups.join(pid()).unwrap();
    assert_eq!(tree.text("tasks"), PID.to_string());
    assert_eq!(tree.text("mon_groups/box/tasks"), PID.to_string());
    assert_eq!(tree.text("schemata"), "");
    tree.empty("mon_groups/box");
    groups.remove().unwrap();
    assert!(tree.there("") && !tree.there("mon_groups/box"));
}

#[test]
fn a_monitoring_group_is_the_containers_alone() {
    let tree = Resctrl::new("monitoring");
    fs::create_dir(tree.0.join("mon_groups/box")).unwrap();
    let line = tree.look(&plan("", true, Vec::new(), true)).unwrap_err().line();
    assert!(line.starts_with("linux.intelRdt.enableMonitoring: the monitoring group "), "{line}");
}

#[test]
fn a_refusal_has_the_kernels_words() {
    let tree = Resctrl::new("words");
    tree.class("gold", "");
    fs::remove_dir(tree.0.join("gold/mon_groups")).unwrap();
    let groups = tree.look(&plan("gold", true, Vec::new(), true)).unwrap();
    let line = groups.make_monitoring().unwrap_err().line();
    assert!(line.starts_with("linux.intelRdt.enableMonitoring: create "), "{line}");
    assert!(line.ends_with(": no such file or directory (ENOENT)"), "{line}");
    fs::write(tree.0.join("info/last_cmd_status"), "Out of RMIDs\n").unwrap();
    let line = groups.make_monitoring().unwrap_err().line();
    assert!(line.ends_with(": Out of RMIDs (ENOENT)"), "{line}");
}

#[test]
fn without_a_mount_it_is_refused() {
    let text = Groups::look(None, &plan("box", false, Vec::new(), false)).unwrap_err().to_string();
    assert_eq!(
        text,
        "linux.intelRdt: no resctrl file system is mounted\nhint: mount -t resctrl resctrl /sys/fs/resctrl"
    );
}

#[test]
fn stats_are_of_the_monitoring_group_and_of_what_the_processor_has() {
    let tree = Resctrl::new("stats");
    let write = |file: &str, text: &str| {
        let path = tree.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    tree.class("c1", "    L3:0=f\n");
    write("schemata", "    L3:0=fffff\n");
    write("info/L3/cbm_mask", "fffff\n");
    write("info/L3/min_cbm_bits", "1\n");
    write("info/L3/num_closids", "16\n");
    write("info/L3_MON/mon_features", "llc_occupancy\n");
    write("c1/mon_groups/c1/mon_data/mon_L3_00/llc_occupancy", "4096\n");
    write("c1/mon_groups/c1/mon_data/mon_L3_01/llc_occupancy", "Unavailable\n");
    let class = tree.0.join("c1");
    let monitoring = Some(class.join("mon_groups/c1"));
    let groups = Groups { root: tree.0.clone(), class, makes_class: false, owns_class: false, monitoring };
    let expected = serde_json::json!({
        "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fffff",
        "l3_cache_schema": "L3:0=f",
        "schemata": ["L3:0=f"],
        "cmt_stats": [{"llc_occupancy": 4096}, {"llc_occupancy": 0}],
    });
    assert_eq!(serde_json::to_value(groups.stats()).unwrap(), expected);
    assert_eq!(serde_json::to_value(Stats::default()).unwrap(), serde_json::json!({}));
}
