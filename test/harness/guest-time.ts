// Set up for each test on the whole host: in a run of everything, none begins when the time for them is over.

import { beforeEach } from "vitest";
import { isTooLate } from "./guest.ts";

beforeEach(({ skip }) => skip(isTooLate()));
