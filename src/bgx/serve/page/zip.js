// A zip of files as they are: pictures are compressed already.

const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function checksum(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** Fields of 2 and 4 bytes, little-endian: [size, value] each. */
function pack(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
  let place = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(place, value, true);
    else view.setUint32(place, value, true);
    place += size;
  }
  return view.buffer;
}

function dosTime(date) {
  const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
  const day = ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
  return [[2, time], [2, day]];
}

/** A Blob of [{ name, blob }] (APPNOTE 6.3, stored, names in UTF-8). Throws RangeError over 4 GB. */
export async function zip(files) {
  const parts = [];
  const directory = [];
  const when = dosTime(new Date());
  let offset = 0;
  for (const { name, blob } of files) {
    const title = new TextEncoder().encode(name);
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const common = [
      [2, 20], [2, 0x0800], [2, 0], ...when,
      [4, checksum(bytes)], [4, bytes.length], [4, bytes.length], [2, title.length], [2, 0],
    ];
    const head = pack([[4, 0x04034b50], ...common]);
    directory.push(
      pack([[4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]),
      title,
    );
    parts.push(head, title, blob);
    offset += head.byteLength + title.length + bytes.length;
    if (offset > 0xffffffff) throw new RangeError("The pictures are too large for one zip");
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const count = files.length;
  const end = pack([
    [4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, size], [4, offset], [2, 0],
  ]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
