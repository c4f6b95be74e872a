// Puts the paid content behind a merchant's middleware and listens.

import { once } from "node:events";

export const WEATHER = { weather: "sunny", celsius: 21 };

/** `content` is what the handler does when the middleware lets a request through. */
export async function serve(app, content = async () => WEATHER) {
  app.get("/weather", (request, response, next) => {
    content().then((body) => response.json(body), next);
  });
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}/weather`,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}
