//! The options of `checkpoint` and `restore`: runc's, and those that crun has besides.

use std::path::PathBuf;

use clap::Args;

/// `checkpoint`.
#[derive(Args, Debug)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    pub(crate) both: Both,
    /// The images of the pre-dump before this one, relative to --image-path; only what has changed since is saved
    #[arg(long, value_name = "DIR")]
    pub(crate) parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    pub(crate) leave_running: bool,
    /// Save memory only, and let the container run on; a later dump names this one by --parent-path
    #[arg(long)]
    pub(crate) pre_dump: bool,
    /// Leave out TCP connections that are just being made
    #[arg(long)]
    pub(crate) tcp_skip_in_flight: bool,
    /// Give files that are open and deleted a name again, where they have another link
    #[arg(long)]
    pub(crate) link_remap: bool,
    /// Descriptor that gets a byte 0 when pages can be asked for, with --lazy-pages; -1: none
    #[arg(long, value_name = "FD", default_value_t = -1, allow_hyphen_values = true)]
    pub(crate) status_fd: i32,
    /// Send memory to a page server; with --lazy-pages, be one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) page_server: Option<String>,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `restore`.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) both: Both,
    /// Directory with config.json [default: the current one]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// Return when the container runs
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// File to write init's pid to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// AF_UNIX socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Do not become the reaper of processes that the container leaves behind
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    /// Without effect: criu changes the root
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Close the TCP connections of the images
    #[arg(long)]
    pub(crate) tcp_close: bool,
    /// Security module and profile in place of those of the images
    #[arg(long, value_name = "TYPE:NAME")]
    pub(crate) lsm_profile: Option<String>,
    /// SELinux context of mounts in place of that of the images
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) lsm_mount_context: Option<String>,
    /// Name of the container
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Options of both.
#[derive(Args, Debug)]
pub(crate) struct Both {
    /// Directory of criu's images
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub(crate) image_path: PathBuf,
    /// Directory of criu's log and other files [default: that of the images]
    #[arg(long, value_name = "DIR")]
    pub(crate) work_path: Option<PathBuf>,
    /// Keep open TCP connections
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// Allow unix sockets whose other end is not in the container
    #[arg(long)]
    pub(crate) ext_unix_sk: bool,
    /// Allow a container that shares its session or process group with others
    #[arg(long)]
    pub(crate) shell_job: bool,
    /// Keep locks of files
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// Transfer memory when it is used
    #[arg(long)]
    pub(crate) lazy_pages: bool,
    /// Remove pages from older images when newer ones have them
    #[arg(long)]
    pub(crate) auto_dedup: bool,
    /// How criu treats cgroups: soft, full, strict, ignore, none or props [default: soft]
    #[arg(long, value_name = "MODE")]
    pub(crate) manage_cgroups_mode: Option<String>,
    /// A namespace whose contents are not saved; network, which never are; may be repeated
    #[arg(long, value_name = "TYPE")]
    pub(crate) empty_ns: Vec<String>,
    /// How criu stops the network meanwhile: iptables, nftables or skip [default: criu's]
    #[arg(long, value_name = "METHOD")]
    pub(crate) network_lock: Option<String>,
}
