// Photos from a drop, with folders and all that is in them, from the clipboard, from a dialog.

const SUFFIXES = /\.(jpe?g|jpe|jfif|png|apng|webp|tiff?|bmp|dib|gif|avif|hei[cf]|hif|mpo)$/i;

/** Splits files into { photos, others }. */
export function sort(files) {
  const photos = [];
  let others = 0;
  for (const file of files) {
    if (file.type.startsWith("image/") || SUFFIXES.test(file.name)) photos.push(file);
    else others++;
  }
  return { photos, others };
}

/** All files of a drop, in the order of their names within each folder, and the names of what
 * cannot be read: { files, unread }. */
export async function readDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  const unread = [];
  if (!entries.some((entry) => entry?.isDirectory)) return { files: [...transfer.files], unread };
  const found = await Promise.all(entries.filter(Boolean).map((entry) => walk(entry, unread)));
  return { files: found.flat(), unread };
}

async function walk(entry, unread) {
  const children = [];
  try {
    if (entry.isFile) {
      return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
    }
    const reader = entry.createReader();
    // It gives them in portions.
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) break;
      children.push(...some);
    }
  } catch {
    unread.push(entry.name);
  }
  children.sort((one, other) => one.name.localeCompare(other.name));
  return (await Promise.all(children.map((child) => walk(child, unread)))).flat();
}
