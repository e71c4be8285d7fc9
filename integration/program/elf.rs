//! Executable files around machine code.

/// Where the file is in memory, and the machine code in the file.
const BASE: u32 = 0x40_0000;
const CODE: u32 = 0x80;

/// elf(5): one loaded segment, which is the whole file, to be read, written and executed, and has
/// room up to 4096 bytes. `class` and `machine` are ELFCLASS* and EM_*.
pub(crate) fn elf(class: u8, machine: u16, code: &[u8]) -> Vec<u8> {
    let wide = class == 2;
    let mut file = vec![0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let word = |value: u32| if wide { u64::from(value).to_le_bytes().to_vec() } else { value.to_le_bytes().to_vec() };
    let (header, entry) = if wide { (64, 56) } else { (52, 32) };
    file.extend([2, machine].map(u16::to_le_bytes).concat()); // ET_EXEC
    file.extend(1_u32.to_le_bytes());
    file.extend([BASE + CODE, header, 0].map(word).concat()); // e_entry, e_phoff, e_shoff
    file.extend(0_u32.to_le_bytes());
    file.extend([header as u16, entry, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    let (load, flags) = (1_u32.to_le_bytes(), 7_u32.to_le_bytes());
    let size = word(0x1000);
    let places = [word(0), word(BASE), word(BASE)].concat();
    let length = word(CODE + code.len() as u32);
    file.extend(load);
    if wide {
        file.extend([&flags[..], &places, &length, &size, &size].concat());
    } else {
        file.extend([&places[..], &length, &size, &flags, &size].concat());
    }
    file.resize(CODE as usize, 0);
    file.extend(code);
    file
}
