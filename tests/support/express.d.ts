/** What the tests use of Express, which brings no types. */
declare module "express" {
  type Handler = (...given: never[]) => unknown;
  interface App {
    use(handler: Handler): void;
    post(path: string, handler: Handler): void;
    listen(port: number): import("node:http").Server;
  }
  export default function express(): App;
}
