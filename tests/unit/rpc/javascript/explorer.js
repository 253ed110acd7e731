// Looks at a store as an explorer of gRPC services does, and prints what it found as JSON: its
// health, by the published protocol; and its services, by reflection alone, without any file of the
// store's. A line "watching" comes first: by then the health is watched.
// Usage: node explorer.js ADDRESS KEY
const grpc = require("@grpc/grpc-js");
const { service } = require("grpc-health-check");
const { GrpcReflection } = require("grpc-js-reflection-client");

const [address, key] = process.argv.slice(2);
const credentials = grpc.credentials.createInsecure();
const Health = grpc.makeClientConstructor(service, "grpc.health.v1.Health");
const health = new Health(address, credentials);
const metadata = new grpc.Metadata();
metadata.set("x-api-key", key);

const call = (client, name, request, given = new grpc.Metadata()) =>
  new Promise((resolve) =>
    client[name](request, given, (error, answer) => resolve(error ? { code: error.code } : answer)),
  );

const watchUntilServing = () =>
  new Promise((resolve, reject) => {
    const told = [];
    const watch = health.watch({ service: "storecache.v1.Inventory" });
    watch.on("error", (error) => (error.code === grpc.status.CANCELLED ? resolve(told) : reject(error)));
    watch.on("data", ({ status }) => {
      if (told.push(status) === 1) console.log("watching");
      if (status === "SERVING") watch.cancel();
    });
  });

(async () => {
  const watched = await watchUntilServing();
  const reflection = new GrpcReflection(address, credentials, {}, "v1alpha");
  const services = await reflection.listServices();
  const methods = await reflection.listMethods("storecache.v1.Sync");
  const described = await reflection.getDescriptorBySymbol("storecache.v1.Inventory");
  const { Inventory } = described.getPackageObject({ longs: Number }).storecache.v1;
  const inventory = new Inventory(address, credentials);
  const { product } = await call(inventory, "GetProduct", { product_id: "TEA-001" }, metadata);
  console.log(
    JSON.stringify({
      watched,
      store: await call(health, "check", { service: "" }),
      unknown: await call(health, "check", { service: "no.such.Service" }),
      services: services.sort(),
      methods: methods.map((each) => each.name).sort(),
      product: JSON.parse(product.json),
    }),
  );
  process.exit(0); // the reflection client has no way to close its connection
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
