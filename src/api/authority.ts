// Which authority (":authority" in HTTP/2, "Host" in HTTP/1.1) a request may name.
import { isLoopbackHost } from "./loopback.ts";

const authorityMaxLength = 512;

/** Whether it is a host with an optional port; with `loopbackOnly`, one that no DNS server can point elsewhere. */
export function isAcceptableAuthority(authority: string | undefined, loopbackOnly: boolean): boolean {
  if (authority === undefined || authority.length > authorityMaxLength) {
    return false;
  }
  const url = URL.parse(`http://${authority}`);
  if (
    url === null ||
    url.username !== "" ||
    url.password !== "" ||
    url.pathname !== "/" ||
    url.search !== ""
  ) {
    return false;
  }
  if (/[/?#@\\\s]/.test(authority)) {
    return false;
  }
  return !loopbackOnly || isLoopbackHost(url.hostname.replace(/^\[|\]$/g, ""));
}
