/* What the probe's rooms share: how a check is told, and how a call is tried without harm to the probe itself. */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>

/* Prints one check as a line of JSON; `detail` holds no quotes. */
void report(bool ok, const char *check, const char *detail, ...) __attribute__((format(printf, 3, 4)));

struct outcome {
  long value;   /* what the call returned */
  int error;    /* errno if it returned -1 */
  int signal;   /* the signal that it died of, or 0 */
};

/* Runs a function in a child and tells what became of it. */
struct outcome attempt(long (*call)(const void *), const void *argument);

/* A name for an errno value: valid until the next call. */
const char *error_name(int error);

/* True outside of any sandbox: a call then counts as ok if it got past every door but its own arguments. */
extern bool is_control;

/* Reports a call that a sandbox must not make. */
void report_refusal(const char *check, struct outcome outcome);

void print_facts(void);    /* all that the kernel says of this process */
void check_calls(void);    /* checks 15 to 18, and what must keep working */
void check_view(void);     /* checks 1 to 4, 7 to 14, 20, 22, 23: what there is to see */
void check_bounds(void);   /* checks 13 and 19: what runs out */

#endif
