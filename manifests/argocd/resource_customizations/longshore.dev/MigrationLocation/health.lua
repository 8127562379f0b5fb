-- A location that is suspended, or paused by its bandwidth, is so because somebody wished it.
local hs = { status = "Progressing", message = "Waiting for the Longshore operator" }

if obj.status == nil or obj.status.conditions == nil then
  return hs
end
local seen = obj.status.observedGeneration
if seen == nil or (obj.metadata.generation ~= nil and seen < obj.metadata.generation) then
  hs.message = "Waiting for the Longshore operator to see the change"
  return hs
end

for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then
    hs.message = condition.message
    if condition.status == "True" then
      hs.status = condition.reason == "Suspended" and "Suspended" or "Healthy"
    elseif condition.reason ~= "Applying" and condition.reason ~= "NotProbed" then
      hs.status = "Degraded"
    end
  end
end
return hs
