// Keeps the folder for use offline, and isolates the page, so that WebAssembly may use threads.
// The exporter puts the list of the page's own files, and a digest of all files, in the place of these two lines.

const DIGEST = "";
const PAGE = [];

const CACHE = `reverie-${new URL(registration.scope).pathname}-`;
const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

addEventListener("install", (event) => event.waitUntil(caches.open(CACHE + DIGEST).then((cache) => cache.addAll(PAGE))));

addEventListener("activate", (event) => {
  const forget = async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith(CACHE) && name !== CACHE + DIGEST) await caches.delete(name);
    }
  };
  event.waitUntil(forget());
});

addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && request.url.startsWith(registration.scope)) event.respondWith(answer(event));
});

async function answer({ request }) {
  const cache = await caches.open(CACHE + DIGEST);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept) return isolated(kept);
  const response = await fetch(request);
  if (response.ok && response.status === 200) {
    // The rest of a visit does not wait for the disk, and a full disk spoils nothing.
    cache.put(request, response.clone()).catch(() => {});
  }
  return isolated(response);
}

function isolated(response) {
  if (response.type === "error" || response.status === 0) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
