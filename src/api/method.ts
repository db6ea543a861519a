// What may be known of a method from its descriptor alone.
import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";

/** "sandboxd.v1.SandboxService/GetSandbox". */
export function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

/** Whether the method changes nothing: marked NO_SIDE_EFFECTS, or of a standard service that has no such mark. */
export function isReadOnly(method: DescMethod): boolean {
  return (
    method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS ||
    method.parent.typeName.startsWith("grpc.")
  );
}
