# The profile that integration/lsm.rs asks for: everything but /denied.
profile runtime-test flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  mount,
  umount,
  pivot_root,
  signal,
  ptrace,
  unix,
  deny /denied rwx,
}
