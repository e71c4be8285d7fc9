//! The messages of rtnetlink(7) that moving a device takes: built and read, not sent. Pure.
//!
//! A message is `nlmsghdr`, then a fixed header of its kind (`ifinfomsg`, `ifaddrmsg`), then attributes: length, kind,
//! payload. Each part begins at a multiple of four bytes. Numbers are in the machine's byte order.

/// linux/netlink.h, linux/rtnetlink.h.
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_CAPPED: u16 = 0x100;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSG_HEADER: usize = 16;
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
/// linux/if_link.h; the last is of Linux 5.13.
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NEW_IFINDEX: u16 = 49;
/// linux/if_addr.h.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_F_PERMANENT: u32 = 0x80;
/// Of IPv6; of IPv4 the same bit says secondary.
const IFA_F_TEMPORARY: u32 = 0x01;
/// `NODAD`, `HOMEADDRESS`, `MANAGETEMPADDR`, `NOPREFIXROUTE`, `MCAUTOJOIN`: what its maker has chosen. The other flags
/// are the address' state.
const IFA_F_CHOSEN: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
const RT_SCOPE_UNIVERSE: u8 = 0;
/// net/if.h.
const IFF_UP: u32 = 1;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are no part of an attribute's kind.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A device, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
    /// The bridge that it is a port of, or the like.
    pub(super) master: Option<u32>,
}

/// An address of a device, with what is needed to make it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) index: u32,
    family: u8,
    prefix_length: u8,
    scope: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// config-linux.md, Network Devices: permanent ones of global scope go with the device.
    pub(super) fn goes_along(&self) -> bool {
        self.flags & IFA_F_PERMANENT != 0 && self.scope == RT_SCOPE_UNIVERSE
    }

    /// The temporary ones of IPv6 are the kernel's, which makes new ones.
    pub(super) fn comes_back(&self) -> bool {
        i32::from(self.family) != libc::AF_INET6 || self.flags & IFA_F_TEMPORARY == 0
    }

    /// The same for another name of the device: without its label, which is the old name, and what the kernel counts.
    pub(super) fn elsewhere(mut self) -> Self {
        self.attributes.retain(|(kind, _)| !matches!(*kind, IFA_LABEL | IFA_CACHEINFO));
        self
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // IFA_LOCAL is the address itself where IFA_ADDRESS is that of the peer; IPv6 has IFA_ADDRESS alone.
        let find = |kind| self.attributes.iter().find(|(other, _)| *other == kind).map(|(_, bytes)| bytes.as_slice());
        let bytes = find(IFA_LOCAL).or_else(|| find(IFA_ADDRESS)).unwrap_or_default();
        if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
            write!(f, "{}/{}", std::net::Ipv4Addr::from(v4), self.prefix_length)
        } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
            write!(f, "{}/{}", std::net::Ipv6Addr::from(v6), self.prefix_length)
        } else {
            write!(f, "an address of family {}", self.family)
        }
    }
}

/// A message to the kernel, without its sequence number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(header);
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        // Payloads are names, numbers and addresses: their lengths fit by far.
        let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The bytes to send.
    pub(super) fn numbered(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let head = length.to_ne_bytes().into_iter().zip(0..).chain(sequence.to_ne_bytes().into_iter().zip(8..));
        for (byte, at) in head {
            if let Some(slot) = self.0.get_mut(at) {
                *slot = byte;
            }
        }
        self.0
    }
}

fn ifinfomsg(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG] {
    let mut bytes = [0; IFINFOMSG];
    let words = [index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()];
    for (slot, byte) in bytes.iter_mut().skip(4).zip(words.into_iter().flatten()) {
        *slot = byte;
    }
    bytes
}

/// All devices.
pub(super) fn list_links() -> Request {
    Request::new(libc::RTM_GETLINK, NLM_F_DUMP, &ifinfomsg(0, 0, 0))
}

/// The device of that name.
pub(super) fn find_link(name: &str) -> Request {
    Request::new(libc::RTM_GETLINK, 0, &ifinfomsg(0, 0, 0)).attribute(IFLA_IFNAME, &c_name(name))
}

/// All addresses of all devices.
pub(super) fn list_addresses() -> Request {
    Request::new(libc::RTM_GETADDR, NLM_F_DUMP, &[0; IFADDRMSG])
}

/// Moves a device to the network namespace of a descriptor, where it gets this name and index. The kernel brings it
/// down before.
pub(super) fn move_link(index: u32, namespace: i32, name: &str, new_index: u32) -> Request {
    Request::new(libc::RTM_NEWLINK, 0, &ifinfomsg(index, 0, 0))
        .attribute(IFLA_NET_NS_FD, &namespace.to_ne_bytes())
        .attribute(IFLA_IFNAME, &c_name(name))
        .attribute(IFLA_NEW_IFINDEX, &new_index.to_ne_bytes())
}

/// Brings a device up.
pub(super) fn bring_up(index: u32) -> Request {
    Request::new(libc::RTM_NEWLINK, 0, &ifinfomsg(index, IFF_UP, IFF_UP))
}

/// Makes a device a port of another one again.
pub(super) fn set_master(index: u32, master: u32) -> Request {
    Request::new(libc::RTM_NEWLINK, 0, &ifinfomsg(index, 0, 0)).attribute(IFLA_MASTER, &master.to_ne_bytes())
}

/// Makes an address again, at the device of that index.
pub(super) fn add_address(address: &Address, index: u32) -> Request {
    let [i0, i1, i2, i3] = index.to_ne_bytes();
    let header = [address.family, address.prefix_length, 0, address.scope, i0, i1, i2, i3];
    let flags = (address.flags & IFA_F_CHOSEN).to_ne_bytes();
    let request = Request::new(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &header).attribute(IFA_FLAGS, &flags);
    address.attributes.iter().fold(request, |request, (kind, payload)| request.attribute(*kind, payload))
}

fn c_name(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

/// A message of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// A part of the answer: the fixed header and the attributes.
    Part(&'a [u8]),
    /// The end of the answer. Errno is 0 where all went well.
    End { errno: i32, words: String },
}

/// The messages in what was received that answer this request, and whether the list has changed meanwhile.
pub(super) fn answers(mut bytes: &[u8], sequence: u32) -> (Vec<Answer<'_>>, bool) {
    let mut found = Vec::new();
    let mut interrupted = false;
    while let (Some(length), Some(kind), Some(flags)) = (u32_at(bytes, 0), u16_at(bytes, 4), u16_at(bytes, 6)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(payload) = bytes.get(NLMSG_HEADER..length) else { break };
        if u32_at(bytes, 8) == Some(sequence) {
            interrupted |= flags & NLM_F_DUMP_INTR != 0;
            found.push(match kind {
                NLMSG_ERROR | NLMSG_DONE => end(payload, kind == NLMSG_ERROR, flags & NLM_F_CAPPED != 0),
                _ => Answer::Part(payload),
            });
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (found, interrupted)
}

/// `nlmsgerr`: the negative errno; for an error the request's header, and the rest of it unless the message is capped;
/// then attributes with the kernel's words.
fn end(payload: &[u8], error: bool, capped: bool) -> Answer<'static> {
    let errno = u32_at(payload, 0).map_or(libc::EPROTO, |number| number.cast_signed().wrapping_neg());
    let request = match (error, capped) {
        (false, _) => 0,
        (true, true) => NLMSG_HEADER,
        (true, false) => u32_at(payload, 4).and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
    };
    let rest = payload.get((4 + request).next_multiple_of(4)..).unwrap_or_default();
    let words = attributes(rest).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG).map(|(_, text)| text_of(text));
    Answer::End { errno, words: words.unwrap_or_default() }
}

/// An answer about a device.
pub(super) fn link(part: &[u8]) -> Option<Link> {
    let find = |wanted| attributes(part.get(IFINFOMSG..)?).find(|(kind, _)| *kind == wanted).map(|(_, bytes)| bytes);
    let master = find(IFLA_MASTER).and_then(|bytes| u32_at(bytes, 0));
    Some(Link {
        index: u32_at(part, 4)?,
        name: text_of(find(IFLA_IFNAME)?),
        up: u32_at(part, 8)? & IFF_UP != 0,
        master,
    })
}

/// An answer about an address.
pub(super) fn address(part: &[u8]) -> Option<Address> {
    let [family, prefix_length, flags, scope] = *part.first_chunk()?;
    let mut address = Address {
        index: u32_at(part, 4)?,
        family,
        prefix_length,
        scope,
        flags: u32::from(flags),
        attributes: Vec::new(),
    };
    for (kind, payload) in attributes(part.get(IFADDRMSG..)?) {
        match kind {
            // All 32 of them; the header has room for 8.
            IFA_FLAGS => address.flags = u32_at(payload, 0)?,
            IFA_ADDRESS | IFA_LOCAL | IFA_LABEL | IFA_BROADCAST | IFA_CACHEINFO | IFA_RT_PRIORITY => {
                address.attributes.push((kind, payload.to_vec()));
            }
            _ => {}
        }
    }
    Some(address)
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let found = (u16_at(bytes, 2)? & NLA_TYPE_MASK, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(found)
    })
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

pub(super) mod route;
#[cfg(test)]
mod tests;
