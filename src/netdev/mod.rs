//! `linux.netDevices`: moves devices of the runtime's network namespace into the container's. Runs in: parent.
//!
//! A device keeps its attributes when it moves; its addresses, the kernel takes away. So they are read before, made again
//! after it, and the device is brought up (config-linux.md, Network Devices). What happens to it at the end is the
//! kernel's business, not ours: when the namespace dies, a physical device goes to the initial one, others are destroyed.
//! Only while `create` can still fail do we hold a socket in the container's namespace: with it the namespace lives on
//! when init is dead, and the devices can go back to where they were.

mod message;
mod stats;

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::plan::NetDevice;
use crate::sys;
use message::route::Route;
use message::{Address, Answer, Link, Request};
pub(crate) use stats::{Interface, interfaces};

/// The kernel fills a part of a list up to this size, rtnetlink(7).
const BUFFER: usize = 32 << 10;
/// How often a list is asked for again that has changed meanwhile.
const TRIES: usize = 16;

/// A device of the plan, as it is before it moves.
pub(crate) struct Device {
    link: Link,
    /// All that it has, of which [`Address::goes_along`] tells what the container gets.
    addresses: Vec<Address>,
    /// For the way back only.
    routes: Vec<Route>,
}

/// Finds the devices of the plan, before anything is made.
pub(crate) fn find(plans: &[NetDevice]) -> Result<Vec<Device>> {
    if plans.is_empty() {
        return Ok(Vec::new());
    }
    let socket = Socket::open().map_err(|refusal| refusal.at(Error::at("linux.netDevices", "open a socket")))?;
    plans.iter().map(|plan| find_one(&socket, plan)).collect()
}

fn find_one(socket: &Socket, plan: &NetDevice) -> Result<Device> {
    let at = |what: String| Error::at(plan.field(), what);
    let link = socket.one(|| message::find_link(&plan.host)).map_err(|refusal| {
        let error = at(format!("find the network device {:?}", plan.host));
        let error =
            if refusal.errno == libc::ENODEV { error.hint("`ip link` lists those that are there") } else { error };
        refusal.at(error)
    })?;
    if link.name != plan.host {
        return Err(at(format!("{:?} is another name of {:?}", plan.host, link.name)).hint("use the name itself"));
    }
    let mut addresses = socket
        .list(message::list_addresses, message::address)
        .map_err(|refusal| refusal.at(at("list its addresses".to_owned())))?;
    addresses.retain(|address| address.index == link.index);
    // Of a table that may have a million.
    let route = |part: &[u8]| message::route::read(part).filter(|route| route.is_made_for(link.index));
    let mut routes = match socket.list(message::route::list, route) {
        // On a router the list never stands still, and it is for the way back only.
        Err(refusal) if refusal.errno == libc::EINTR => Vec::new(),
        routes => routes.map_err(|refusal| refusal.at(at("list its routes".to_owned())))?,
    };
    routes.sort_by_key(Route::has_gateway);
    Ok(Device { link, addresses, routes })
}

/// A network namespace, and a socket in it.
struct Side {
    socket: Socket,
    namespace: OwnedFd,
}

impl Side {
    fn send_to(&self, to: &Self, index: u32, new_index: u32, name: &str) -> std::result::Result<(), Refusal> {
        self.socket.call(|| message::move_link(index, to.namespace.as_raw_fd(), name, new_index))
    }
}

/// What has moved, and how it gets back.
pub(crate) struct Handover {
    host: Side,
    container: Side,
    moved: Vec<Moved>,
}

/// A device that moves, or has moved.
struct Moved {
    field: String,
    /// In the container.
    index: u32,
    device: Device,
}

impl Handover {
    /// Between the runtime's namespace and that of a process.
    pub(crate) fn open(proc: &OwnedFd, pid: Pid) -> Result<Self> {
        let own = namespace(proc, "self")?;
        let other = namespace(proc, &pid.as_raw_nonzero().to_string())?;
        let failed = |what: &str| Error::at("linux.netDevices", what.to_owned());
        let here = Socket::open().map_err(|refusal| refusal.at(failed("open a socket")))?;
        sys::setns(other.as_fd(), libc::CLONE_NEWNET)
            .map_err(|errno| failed("enter the container's network namespace").errno(errno))?;
        // A socket stays in the namespace where it was made. We do not: hooks run in ours.
        let there = Socket::open();
        sys::setns(own.as_fd(), libc::CLONE_NEWNET)
            .map_err(|errno| failed("return to the runtime's network namespace").errno(errno))?;
        let there =
            there.map_err(|refusal| refusal.at(failed("open a socket in the container's network namespace")))?;
        Ok(Self {
            host: Side { socket: here, namespace: own },
            container: Side { socket: there, namespace: other },
            moved: Vec::new(),
        })
    }

    /// Moves the devices, each complete with its addresses before the next.
    pub(crate) fn carry_out(&mut self, plans: &[NetDevice], devices: Vec<Device>) -> Result<()> {
        for (plan, device) in plans.iter().zip(devices) {
            let what = format!("move {:?} to the container's network namespace as {:?}", plan.host, plan.name);
            let failed = |refusal: Refusal| {
                let error = Error::at(plan.field(), &what);
                refusal.at(match refusal.errno {
                    libc::EINVAL => error.hint("some kinds of devices belong to the namespace that they were made in"),
                    libc::EPERM => error.hint("network devices are not supported for rootless containers"),
                    _ => error,
                })
            };
            let there = self.container.socket.links().map_err(&failed)?;
            check_name(&there, plan)?;
            let (old, new) = (device.link.index, free_index(&there, device.link.index));
            // Before the move: what the kernel refuses may have moved all the same, as it renames afterwards.
            self.moved.push(Moved { field: plan.field(), index: new, device });
            self.host.send_to(&self.container, old, new, &plan.name).map_err(&failed)?;
            self.moved.last().map_or(Ok(()), |moved| complete(&self.container, moved, new))?;
        }
        Ok(())
    }

    /// Moves everything back, last first: names, indices, addresses and routes as they were.
    pub(crate) fn undo(&self) -> Vec<Error> {
        self.moved.iter().rev().filter_map(|moved| self.back(moved).err()).collect()
    }

    fn back(&self, moved: &Moved) -> Result<()> {
        let link = &moved.device.link;
        let failed = |refusal: Refusal| {
            refusal.at(Error::at(&moved.field, format!("move {:?} back to the runtime's network namespace", link.name)))
        };
        let here = self.host.socket.links().map_err(failed)?;
        if here.iter().any(|other| (other.index, &other.name) == (link.index, &link.name)) {
            // It has never left.
            return Ok(());
        }
        let index = free_index(&here, link.index);
        self.container.send_to(&self.host, moved.index, index, &link.name).map_err(failed)?;
        restore(&self.host, moved, index)
    }
}

/// The network namespace of a process, `self` for ours.
fn namespace(proc: &OwnedFd, process: &str) -> Result<OwnedFd> {
    // The last component is a magic link, which is the point.
    let path = format!("{process}/ns/net");
    rustix::fs::openat2(proc, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty()).map_err(
        |errno| {
            let error = Error::at("linux.netDevices", format!("open /proc/{path}")).errno(errno);
            if errno == Errno::ACCESS { error.hint("it needs CAP_SYS_PTRACE") } else { error }
        },
    )
}

/// Before the kernel does, which finds out that a name is taken when the device has moved already.
fn check_name(there: &[Link], plan: &NetDevice) -> Result<()> {
    if !plan.is_template() && there.iter().any(|link| link.name == plan.name) {
        let what = format!("a network device {:?} is in the container's network namespace already", plan.name);
        return Err(
            Error::at(plan.name_field(), what).hint("give another \"name\", or \"eth%d\" for the first free number")
        );
    }
    Ok(())
}

/// The index that a device gets: its own where that is free. It is chosen here, because it is how the device is found
/// in the other namespace, whatever name a template has come to.
fn free_index(there: &[Link], wanted: u32) -> u32 {
    let highest = there.iter().map(|link| link.index).max().unwrap_or(0);
    if there.iter().any(|link| link.index == wanted) { highest.saturating_add(1) } else { wanted }
}

/// Gives a device that has moved the addresses that go along, and brings it up.
fn complete(side: &Side, moved: &Moved, index: u32) -> Result<()> {
    for address in moved.device.addresses.iter().filter(|address| address.goes_along()) {
        let address = address.clone().elsewhere();
        side.socket
            .call(|| message::add_address(&address, index))
            .map_err(|refusal| refusal.at(Error::at(&moved.field, format!("give it the address {address} again"))))?;
    }
    side.socket
        .call(|| message::bring_up(index))
        .map_err(|refusal| refusal.at(Error::at(&moved.field, "bring the device up")))
}

/// Gives a device that has come back everything that it had. What the kernel or a daemon has made again is there already.
fn restore(side: &Side, moved: &Moved, index: u32) -> Result<()> {
    let Device { link, addresses, routes } = &moved.device;
    let at = |what: String| Error::at(&moved.field, what);
    let again = |request: &dyn Fn() -> Request, what: &str| match side.socket.call(request) {
        Err(refusal) if refusal.errno != libc::EEXIST => Err(refusal.at(at(format!("give it {what} again")))),
        _ => Ok(()),
    };
    if let Some(master) = link.master {
        again(&|| message::set_master(index, master), "its master")?;
    }
    for address in addresses.iter().filter(|address| address.comes_back()) {
        again(&|| message::add_address(address, index), &format!("the address {address}"))?;
    }
    if link.up {
        again(&|| message::bring_up(index), "its state, up,")?;
    }
    routes.iter().try_for_each(|route| again(&|| message::route::add(route, index), "a route"))
}

/// What the kernel has against a request.
struct Refusal {
    errno: i32,
    words: String,
}

impl Refusal {
    fn at(&self, error: Error) -> Error {
        error.errno(crate::error::Errno(self.errno)).kernel(self.words.clone())
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno: errno.raw_os_error(), words: String::new() }
    }
}

/// A socket of NETLINK_ROUTE, which is protocol 0.
struct Socket {
    fd: OwnedFd,
    sequence: Cell<u32>,
}

impl Socket {
    fn open() -> std::result::Result<Self, Refusal> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        sys::netlink_ext_ack(fd.as_fd())?;
        Ok(Self { fd, sequence: Cell::new(0) })
    }

    /// A request without an answer but that all went well.
    fn call(&self, request: impl Fn() -> Request) -> std::result::Result<(), Refusal> {
        self.list(request, |_| None::<()>).map(drop)
    }

    fn one(&self, request: impl Fn() -> Request) -> std::result::Result<Link, Refusal> {
        self.list(request, message::link)?.into_iter().next().ok_or_else(|| Errno::NODEV.into())
    }

    fn links(&self) -> std::result::Result<Vec<Link>, Refusal> {
        self.list(message::list_links, message::link)
    }

    /// Sends a request and reads the answers to their end; again if a list has changed while it was read.
    fn list<T>(
        &self,
        request: impl Fn() -> Request,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> std::result::Result<Vec<T>, Refusal> {
        for _ in 0..TRIES {
            if let Some(found) = self.exchange(request(), &read)? {
                return Ok(found);
            }
        }
        Err(Errno::INTR.into())
    }

    fn exchange<T>(
        &self,
        request: Request,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> std::result::Result<Option<Vec<T>>, Refusal> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        // Without an address it goes to the kernel.
        rustix::net::send(&self.fd, &request.numbered(sequence), SendFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        let (mut found, mut changed) = (Vec::new(), false);
        loop {
            let (bytes, length) = rustix::net::recv(&self.fd, buffer.as_mut_slice(), RecvFlags::TRUNC)?;
            let received = buffer.get(..bytes).filter(|_| length == bytes).ok_or(Errno::MSGSIZE)?;
            let (answers, interrupted) = message::answers(received, sequence);
            changed |= interrupted;
            for answer in answers {
                match answer {
                    Answer::Part(part) => found.extend(read(part)),
                    Answer::End { errno: 0, .. } => return Ok(Some(found).filter(|_| !changed)),
                    Answer::End { errno, words } => return Err(Refusal { errno, words }),
                }
            }
        }
    }
}
