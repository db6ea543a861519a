// What a hostile caller may ask of a create: each is refused by its reason, before any row or container, or overridden.

import { request } from "node:http";
import { pack } from "node:zlib";
