use super::*;

/// `nlmsghdr` and a payload.
fn raw(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(NLMSG_HEADER + payload.len()).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A request as the kernel's answer: the same layout.
fn as_answer(request: Request) -> Vec<u8> {
    request.0[NLMSG_HEADER..].to_vec()
}

#[test]
fn a_request_has_the_layout_of_rtnetlink() {
    let bytes = move_link(7, 5, "eth0", 9).numbered(3);
    let mut expected = raw(16, 0x5, 3, &[]);
    expected[0] = 16 + 16 + 8 + 12 + 8;
    expected.extend([0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([8, 0, 28, 0, 5, 0, 0, 0]);
    // The length of an attribute leaves out what it is filled up with.
    expected.extend([9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
    expected.extend([8, 0, 49, 0, 9, 0, 0, 0]);
    assert_eq!(bytes, expected);
    assert_eq!(list_links().numbered(1)[4..8], [18, 0, 0x05, 0x03]);
    assert_eq!(list_addresses().numbered(1)[4..8], [22, 0, 0x05, 0x03]);
    assert_eq!(bring_up(2).numbered(1)[16..], [0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn answers_are_told_by_their_number_and_end_with_an_errno() {
    let received = [raw(16, 0, 4, b"other"), raw(16, 2, 5, b"12345"), raw(3, 2, 5, &[0; 4])].concat();
    let end = Answer::End { errno: 0, words: String::new() };
    assert_eq!(answers(&received, 5), (vec![Answer::Part(b"12345"), end], false));
    let (_, interrupted) = answers(&raw(16, 2 | NLM_F_DUMP_INTR, 5, b""), 5);
    assert!(interrupted);
}

#[test]
fn an_error_brings_the_kernels_words() {
    let words = [13, 0, 1, 0, b'n', b'o', b' ', b'd', b'e', b'v', b'i', b'c', 0].to_vec();
    let request = find_link("a").numbered(5);
    let whole = [&(-19_i32).to_ne_bytes()[..], &request, &words].concat();
    let capped = [&(-19_i32).to_ne_bytes()[..], &request[..16], &words].concat();
    let expected = || vec![Answer::End { errno: 19, words: "no devic".to_owned() }];
    assert_eq!(answers(&raw(2, 0x200, 5, &whole), 5).0, expected());
    assert_eq!(answers(&raw(2, 0x300, 5, &capped), 5).0, expected());
    // Without words, and with the request's length wrong.
    let silent = [&(-19_i32).to_ne_bytes()[..], &[0xff; 16]].concat();
    assert_eq!(answers(&raw(2, 0, 5, &silent), 5).0, [Answer::End { errno: 19, words: String::new() }]);
}

#[test]
fn what_is_cut_off_is_no_answer() {
    let whole = [raw(16, 0, 5, b"1234"), raw(2, 0, 5, &[0; 20])].concat();
    for length in 0..whole.len() {
        let (found, _) = answers(&whole[..length], 5);
        assert_eq!(found.len(), usize::from(length >= 20), "{length}");
    }
    for length in 0..IFINFOMSG + 4 {
        assert_eq!(link(&as_answer(find_link("eth0"))[..length]), None);
    }
    assert_eq!(address(&[2, 24, 0x80, 0, 1, 0, 0]), None);
    // A length of 0 must not go round for ever.
    assert!(answers(&[0; 64], 0).0.is_empty());
    assert_eq!(attributes(&[0; 16]).count(), 0);
}

#[test]
fn a_link_is_read() {
    let part = [&ifinfomsg(7, 0x1043, 0)[..], &as_answer(find_link("eth0"))[IFINFOMSG..]].concat();
    assert_eq!(link(&part), Some(Link { index: 7, name: "eth0".to_owned(), up: true, master: None }));
    let port = as_answer(find_link("b").attribute(IFLA_MASTER, &[3, 0, 0, 0]));
    assert_eq!(link(&port), Some(Link { index: 0, name: "b".to_owned(), up: false, master: Some(3) }));
}

fn v4(flags: u8, scope: u8, more: u32) -> Address {
    let header = [2, 24, flags, scope, 7, 0, 0, 0];
    let request = Request::new(20, 0, &header)
        .attribute(IFA_ADDRESS, &[10, 0, 0, 2])
        .attribute(IFA_LOCAL, &[10, 0, 0, 1])
        .attribute(3, b"eth0\0")
        .attribute(IFA_FLAGS, &more.to_ne_bytes())
        .attribute(6, &[0; 16]);
    address(&as_answer(request)).unwrap()
}

#[test]
fn an_address_is_made_again_without_its_state_and_label() {
    // Permanent, secondary, deprecated; and noprefixroute, which only the long flags have.
    let address = v4(0xa1, 0, 0x2a1);
    assert_eq!(address.to_string(), "10.0.0.1/24");
    assert_ne!(add_address(&address, 9), add_address(&address.clone().elsewhere(), 9));
    let bytes = add_address(&address.elsewhere(), 9).numbered(1);
    assert_eq!(bytes[4..8], [20, 0, 0x05, 0x06]);
    let mut expected = vec![2, 24, 0, 0, 9, 0, 0, 0, 8, 0, 8, 0, 0, 2, 0, 0];
    expected.extend([8, 0, 1, 0, 10, 0, 0, 2, 8, 0, 2, 0, 10, 0, 0, 1]);
    assert_eq!(bytes[16..], expected);
}

#[test]
fn permanent_addresses_of_global_scope_go_along() {
    assert!(v4(0x80, 0, 0x80).goes_along());
    assert!(!v4(0x80, 253, 0x80).goes_along(), "of the link");
    assert!(!v4(0, 0, 0).goes_along(), "of a DHCP client");
    let v6 = address(&[&[10, 64, 0x80, 0, 7, 0, 0, 0, 20, 0, 1, 0][..], &[0xfd; 16]].concat()).unwrap();
    assert!(v6.goes_along());
    assert!(v6.comes_back() && v4(0x01, 0, 0x01).comes_back(), "secondary ones too");
    let temporary = address(&[&[10, 64, 0x01, 0, 7, 0, 0, 0, 20, 0, 1, 0][..], &[0xfd; 16]].concat()).unwrap();
    assert!(!temporary.comes_back());
    assert_eq!(v6.to_string(), "fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd/64");
}
