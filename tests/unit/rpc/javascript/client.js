// Calls a store as a till in JavaScript would, and prints what it got as JSON.
// Usage: node client.js ADDRESS KEY PROTO_FOLDER
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, key, folder] = process.argv.slice(2);
const definition = loader.loadSync("storecache/v1/inventory.proto", {
  includeDirs: [folder],
  longs: Number,
  defaults: true,
  oneofs: true,
});
const { Inventory } = grpc.loadPackageDefinition(definition).storecache.v1;
const client = new Inventory(address, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("x-api-key", key);

const call = (name, request) =>
  new Promise((resolve, reject) =>
    client[name](request, metadata, (error, answer) => (error ? reject(error) : resolve(answer))),
  );

const watchUntilSold = () =>
  new Promise((resolve, reject) => {
    const told = [];
    const watch = client.WatchProducts({ fromStart: true }, metadata);
    watch.on("error", (error) => (error.code === grpc.status.CANCELLED ? resolve(told) : reject(error)));
    watch.on("data", (message) => {
      for (const event of message.events) {
        told.push(event.kind);
        if (event.kind === "ready") {
          call("AdjustInventory", { productId: "TEA-001", quantityChange: -1, requestId: "js-1" }).catch(reject);
        }
        if (event.kind === "product" && event.product.available === 39) {
          watch.cancel();
        }
      }
    });
  });

(async () => {
  const { product, freshness } = await call("GetProduct", { productId: "TEA-001" });
  const page = await call("ListProducts", { pageSize: 2 });
  const told = await watchUntilSold();
  const refusal = await call("GetProduct", { productId: "NONE" }).catch((error) => error);
  console.log(
    JSON.stringify({
      product: JSON.parse(product.json),
      generation: freshness.generation,
      ids: page.products.map((each) => each.productId),
      hasMore: page.nextPageToken !== "",
      told,
      refusal: { code: refusal.code, details: refusal.details },
      hasDetails: refusal.metadata.get("grpc-status-details-bin").length === 1,
    }),
  );
  client.close();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
