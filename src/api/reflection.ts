// grpc.reflection: the contract told by the daemon itself, so that grpcurl and others need no proto files. v1 and
// v1alpha are the same messages under two names.
import type { DescFile, DescMessage, DescService, Registry } from "@bufbuild/protobuf";
import { create, createRegistry, toBinary } from "@bufbuild/protobuf";
import { nestedTypes } from "@bufbuild/protobuf/reflect";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import type {
  ServerReflectionRequest,
  ServerReflectionResponse,
} from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflectionResponseSchema } from "../../gen/grpc/reflection/v1/reflection_pb.ts";

type Answer = ServerReflectionResponse["messageResponse"];
type Asked = ServerReflectionRequest["messageRequest"];

/** Answers requests about these services and all that they use. */
export interface Reflection {
  answer(asked: Asked): Answer;
}

/** Reads the descriptors when first asked. `more` are files that no service needs but callers do: error details. */
export function createReflection(
  services: () => readonly DescService[],
  more: readonly DescFile[],
): Reflection {
  let index: Index | undefined;
  return {
    answer(asked) {
      index ??= createIndex(services(), more);
      return answer(index, asked);
    },
  };
}

/** One stream of questions and answers, for either version. */
export async function* reflectionStream(
  reflection: Reflection,
  requests: AsyncIterable<Pick<ServerReflectionRequest, "host" | "messageRequest">>,
): AsyncGenerator<ServerReflectionResponse> {
  for await (const request of requests) {
    yield create(ServerReflectionResponseSchema, {
      validHost: request.host,
      originalRequest: { host: request.host, messageRequest: request.messageRequest },
      messageResponse: reflection.answer(request.messageRequest),
    });
  }
}

interface Index {
  readonly services: readonly DescService[];
  readonly files: ReadonlyMap<string, DescFile>;
  readonly registry: Registry;
}

function createIndex(services: readonly DescService[], more: readonly DescFile[]): Index {
  const files = new Map<string, DescFile>();
  function add(file: DescFile): void {
    if (!files.has(file.proto.name)) {
      files.set(file.proto.name, file);
      file.dependencies.forEach(add);
    }
  }
  for (const file of [...services.map((service) => service.file), ...more]) {
    add(file);
  }
  return {
    services,
    files,
    registry: createRegistry(...[...files.values()].flatMap((file) => [...nestedTypes(file)])),
  };
}

function answer(index: Index, asked: Asked): Answer {
  switch (asked.case) {
    case "listServices": {
      const service = index.services.map(({ typeName }) => ({ name: typeName }));
      return response({ case: "listServicesResponse", value: { service } });
    }
    case "fileByFilename":
      return fileAnswer(index.files.get(asked.value), `file ${asked.value}`);
    case "fileContainingSymbol":
      return fileAnswer(fileOfSymbol(index, asked.value), `symbol ${asked.value}`);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = asked.value;
      const extended = messageOfName(index, containingType);
      const extension = extended && index.registry.getExtensionFor(extended, extensionNumber);
      return fileAnswer(extension?.file, `extension ${extensionNumber} of ${containingType}`);
    }
    case "allExtensionNumbersOfType": {
      if (messageOfName(index, asked.value) === undefined) {
        return notFound(`message ${asked.value}`);
      }
      const extensionNumber = [...index.registry]
        .filter((type) => type.kind === "extension")
        .filter((extension) => extension.extendee.typeName === asked.value)
        .map(({ number }) => number);
      return response({
        case: "allExtensionNumbersResponse",
        value: { baseTypeName: asked.value, extensionNumber },
      });
    }
    case undefined:
      return response({
        case: "errorResponse",
        value: { errorCode: Code.InvalidArgument, errorMessage: "the request asks nothing" },
      });
  }
}

/** The file and all that it needs, needed ones last: clients that know one already may skip it. */
function fileAnswer(file: DescFile | undefined, asked: string): Answer {
  if (file === undefined) {
    return notFound(asked);
  }
  const needed = new Set<DescFile>();
  function need(wanted: DescFile): void {
    if (!needed.has(wanted)) {
      needed.add(wanted);
      wanted.dependencies.forEach(need);
    }
  }
  need(file);
  const fileDescriptorProto = [...needed].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  return response({ case: "fileDescriptorResponse", value: { fileDescriptorProto } });
}

/** A symbol may be a type, a service, a method, a field, a oneof or an enum's value; those within a type are found by it. */
function fileOfSymbol(index: Index, symbol: string): DescFile | undefined {
  const found = index.registry.get(symbol);
  if (found !== undefined) {
    return found.file;
  }
  const dot = symbol.lastIndexOf(".");
  const parent = dot < 0 ? undefined : index.registry.get(symbol.slice(0, dot));
  const name = symbol.slice(dot + 1);
  switch (parent?.kind) {
    case "service":
      return parent.methods.some((method) => method.name === name) ? parent.file : undefined;
    case "message":
      return parent.members.some((member) => member.name === name) ? parent.file : undefined;
    default:
      return fileOfEnumValue(index, symbol);
  }
}

/** A value's scope is that of its enum, not the enum. */
function fileOfEnumValue(index: Index, symbol: string): DescFile | undefined {
  for (const type of index.registry) {
    if (type.kind === "enum") {
      const scope = type.typeName.slice(0, type.typeName.lastIndexOf(".") + 1);
      if (symbol.startsWith(scope) && type.values.some((value) => scope + value.name === symbol)) {
        return type.file;
      }
    }
  }
  return undefined;
}

function messageOfName(index: Index, typeName: string): DescMessage | undefined {
  return index.registry.getMessage(typeName);
}

const askedMaxLength = 256;

function notFound(asked: string): Answer {
  const errorMessage = `not found: ${asked.slice(0, askedMaxLength)}`;
  return response({ case: "errorResponse", value: { errorCode: Code.NotFound, errorMessage } });
}

type AnswerInit = NonNullable<
  Parameters<typeof create<typeof ServerReflectionResponseSchema>>[1]
>["messageResponse"];

function response(messageResponse: AnswerInit): Answer {
  return create(ServerReflectionResponseSchema, { messageResponse }).messageResponse;
}
