//! What went wrong in the child, as it passes through the socket and `exec.fifo`. Runs in: parent and child.

use super::LENGTH;
use crate::sys;

macro_rules! steps {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What the child was doing when a call failed. `item` is an index into the list of the plan that the step
        /// works on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Step {
            $($(#[doc = $doc])* $name,)*
        }

        /// All steps, in the order of their numbers.
        const ALL: &[Step] = &[$(Step::$name,)*];
    };
}

steps! {
    /// Internal to the protocol: a message that cannot be sent or understood.
    Protocol,
    OomScore,
    JoinCgroup,
    JoinNamespace,
    JoinInit,
    MakeNamespaces,
    SecondChild,
    ExecChild,
    CgroupNamespace,
    TimeNamespace,
    TimeOffsets,
    UserNamespaceRoot,
    Session,
    Keyring,
    KeyLabel,
    Loopback,
    RootSource,
    InheritedMounts,
    AttachRootfs,
    MountTarget,
    MountSource,
    MountNotProc,
    MountUnsafeTarget,
    MountOpen,
    MountParam,
    MountCreate,
    MountAttrs,
    MountAttach,
    MountPropagation,
    MountCgroup,
    MountLabel,
    CopyUp,
    DevDirectory,
    DeviceNode,
    DeviceMismatch,
    DevLink,
    MaskSource,
    MaskTarget,
    Mask,
    ReadonlyTarget,
    Readonly,
    Hook,
    PivotRoot,
    RootReadonly,
    RootPropagation,
    Terminal,
    Console,
    Null,
    Hostname,
    Domainname,
    Sysctl,
    Cwd,
    CwdOutside,
    ApparmorProfile,
    SelinuxLabel,
    NoNewPrivileges,
    Seccomp,
    /// Sending the listener of the filter.
    Listener,
    Bounding,
    Groups,
    Gid,
    Uid,
    Capabilities,
    Ambient,
    NotFound,
    NotExecutable,
    Descriptors,
    PreservedFd,
    Affinity,
    MemoryPolicy,
    Personality,
    Rlimit,
    Gate,
    NoProcess,
    Exec,
}

impl Step {
    fn from_u8(number: u8) -> Self {
        ALL.get(usize::from(number)).copied().unwrap_or(Self::Protocol)
    }
}

/// Why a program cannot be executed: `sub` of the steps [`Step::NotExecutable`] and [`Step::Exec`]. Then the detail is the
/// program's path, a NUL, and what the cause names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cause {
    /// Its file system is mounted with `noexec`.
    NoExec = 1,
    /// Nobody may execute it.
    NoBit,
    /// The interpreter of its `#!` line is missing.
    Interpreter,
    /// So it seems, because that line ends with CR LF.
    CarriageReturn,
    /// The loader that it was linked for is missing.
    Loader,
    /// It is for another processor.
    Machine,
    /// It is neither ELF nor a script.
    Format,
}

impl Cause {
    /// By its number.
    pub(crate) fn of(fault: &Fault) -> Option<Self> {
        let all = [Self::NoExec, Self::NoBit, Self::Interpreter, Self::CarriageReturn, Self::Loader, Self::Machine];
        all.into_iter().chain([Self::Format]).find(|cause| *cause as u16 == fault.sub)
    }
}

/// A failed step: everything the parent needs to write the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) step: Step,
    pub(crate) item: u16,
    /// A second index, for example of the option of a mount.
    pub(crate) sub: u16,
    pub(crate) errno: i32,
    /// The kernel's own words, or a hook's.
    pub(crate) detail: Detail,
}

/// Up to 160 bytes of text, without allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Detail {
    length: u8,
    bytes: [u8; Detail::MAX],
}

impl Detail {
    pub(super) const MAX: usize = 160;

    /// Keeps the beginning.
    pub(crate) fn new(text: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        let length = text.len().min(Self::MAX);
        for (slot, byte) in bytes.iter_mut().zip(text) {
            *slot = *byte;
        }
        Self { length: u8::try_from(length).unwrap_or(u8::MAX), bytes }
    }

    /// Keeps the end, where programs say what went wrong.
    pub(crate) fn end_of(text: &[u8]) -> Self {
        Self::new(text.get(text.len().saturating_sub(Self::MAX)..).unwrap_or(text))
    }

    /// The text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl std::fmt::Debug for Detail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

impl Fault {
    /// A step that has one item only, or none.
    pub(crate) fn new(step: Step, errno: sys::Errno) -> Self {
        Self::with_number(step, errno.raw_os_error())
    }

    /// With a number that is no errno: a pid, the status of a hook, or 0.
    pub(crate) fn with_number(step: Step, number: i32) -> Self {
        Self { step, item: 0, sub: 0, errno: number, detail: Detail::new(b"") }
    }

    /// Which item.
    pub(crate) fn item(mut self, item: usize) -> Self {
        self.item = u16::try_from(item).unwrap_or(u16::MAX);
        self
    }

    /// Which part of the item.
    pub(crate) fn sub(mut self, sub: usize) -> Self {
        self.sub = u16::try_from(sub).unwrap_or(u16::MAX);
        self
    }

    /// In the kernel's words.
    pub(crate) fn detail(mut self, detail: Detail) -> Self {
        self.detail = detail;
        self
    }

    /// The bytes of the message, also as they pass through `exec.fifo`.
    pub(crate) fn encode(&self, kind: u8) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let [item0, item1] = self.item.to_le_bytes();
        let [sub0, sub1] = self.sub.to_le_bytes();
        let [errno0, errno1, errno2, errno3] = self.errno.to_le_bytes();
        let head =
            [kind, self.step as u8, item0, item1, sub0, sub1, errno0, errno1, errno2, errno3, self.detail.length];
        for (slot, byte) in bytes.iter_mut().zip(head.iter().chain(&self.detail.bytes)) {
            *slot = *byte;
        }
        bytes
    }

    /// Whether a hook failed.
    pub(crate) fn is_hooks(&self) -> bool {
        self.step == Step::Hook
    }

    /// The reverse of `encode`.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [_, step, item0, item1, sub0, sub1, errno0, errno1, errno2, errno3, length, text @ ..] = bytes else {
            return None;
        };
        Some(Self {
            step: Step::from_u8(*step),
            item: u16::from_le_bytes([*item0, *item1]),
            sub: u16::from_le_bytes([*sub0, *sub1]),
            errno: i32::from_le_bytes([*errno0, *errno1, *errno2, *errno3]),
            detail: Detail::new(text.get(..usize::from(*length))?),
        })
    }
}

/// Added to the index of a `startContainer` hook, so that it is told apart from a `createContainer` hook.
pub(crate) const START_CONTAINER: usize = 1 << 12;
